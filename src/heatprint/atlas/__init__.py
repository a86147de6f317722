"""Floor 5.5: what the groups of a map mean: cards, flows of attacked images, and tests of what they suggest."""

from heatprint.atlas.border import Relation, border_distance, border_relation, logit_margin, relation
from heatprint.atlas.cards import Card, cards, suspicion
from heatprint.atlas.counterfactual import Counterfactual, counterfactual
from heatprint.atlas.flows import Flows, first_to_fall, flows
from heatprint.atlas.gains import Median, gains
from heatprint.atlas.region import suspect_region

__all__ = [
    "Card",
    "Counterfactual",
    "Flows",
    "Median",
    "Relation",
    "border_distance",
    "border_relation",
    "cards",
    "counterfactual",
    "first_to_fall",
    "flows",
    "gains",
    "logit_margin",
    "relation",
    "suspect_region",
    "suspicion",
]
