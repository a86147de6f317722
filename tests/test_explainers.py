"""The door of the room, and the contract every explainer keeps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from heatprint.core.errors import BrokenContract, InvalidInput
from heatprint.core.values import Explained
from heatprint.explainers import EXPLAINERS, explain, make
from heatprint.models import wrap
from heatprint.testing import check_explainer, labelled_batch, small_classifier

NAMES = EXPLAINERS.names()


FAST = {  # less than the defaults, where those take seconds on a 16 pixel image
    "anchors": {"segments": 9, "budget": 64, "largest": 2},
    "lime": {"samples": 200},
    "lrp.composite": {"lines": [{"rule": "gamma", "kind": "conv"}, {"rule": "epsilon", "settings": {"epsilon": 0.1}}]},
    "shap.kernel": {"samples": 200},
    "shap.partition": {"samples": 100},
}
NEEDS = {"captum": "captum", "shap.partition": "shap"}


@pytest.mark.parametrize("name", NAMES)
def test_every_explainer_keeps_its_contract(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    method = make(name, **FAST.get(name, {}))
    check_explainer(method, small_classifier(size=16) if name not in ("lrp.flat", "lrp.w_square") else plain())


def plain():
    """No residual sum: rules that ignore activations put relevance on inactive neurons, where a sum is 0."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 7 * 7, 3))
    return wrap(network, classes=["a", "b", "c"], size=16)


def test_the_door_refuses_relevance_that_is_not_finite(small):
    class Broken:
        def attribute(self, classifier, inputs, target, *, layers=()):
            return Explained(ids=(), relevance=inputs * torch.inf, target=target, score=target.float()), {}

    with pytest.raises(BrokenContract, match="use an epsilon rule"):
        explain(small, labelled_batch(small), Broken())
    for target in (torch.tensor([0]), torch.full((8,), 7)):
        with pytest.raises(InvalidInput, match="one class per image, 0 to 2"):
            explain(small, labelled_batch(small), make("gradient"), target=target)
    with pytest.raises(InvalidInput, match="Load them with size=16"):
        explain(small, labelled_batch(small_classifier(size=20)), make("gradient"))
