"""Attacks of torchattacks under our referee."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from heatprint.attacks.foreign.base import Foreign
from heatprint.attacks.foreign.view import View
from heatprint.core.goals import Goal


@dataclass(frozen=True, kw_only=True)
class TorchAttacks(Foreign):
    """An attack of torchattacks (Kim 2020, arXiv:2010.01950); see `heatprint.attacks.foreign.base.Foreign`.

    Its normalisation is off, because the classifier normalises inside. Targets are handed over by its mode
    "targeted by label"; an attack without that mode cannot aim.

    Attributes:
        attack: Class name in `torchattacks`, e.g. ``"PGD"``, ``"CW"``, ``"Square"``.
        settings: Its arguments without the model.
    """

    attack: str = "PGD"

    package = distribution = module = extra = "torchattacks"
    paper = "Kim 2020, arXiv:2010.01950"
    one_step = frozenset({"FGSM", "FFGSM", "GN", "VANILA"})

    def _is_attack(self, kind: Any) -> bool:
        if not inspect.isclass(kind) or not issubclass(kind, self._library().attack.Attack):
            return False
        return next(iter(inspect.signature(kind).parameters), "") == "model" and kind.__name__ != "LGV"

    def _aims(self) -> bool:
        return "targeted" in self._bound(nn.PReLU()).supported_mode  # a network that draws nothing

    def _bound(self, model: nn.Module) -> Any:
        """The attack, made or copied, on this model; in a copy every reference to the old one is replaced."""
        if self.given is None:
            return self._kind()(model, **self.settings)
        return copy.deepcopy(self.given.held, {id(self.given.held.model): model})

    def _run(self, view: View, images: Tensor, goal: Goal) -> tuple[Tensor, object]:
        attack = self._bound(view)
        attack.set_device(images.device)
        attack._set_normalization_applied(None)
        if goal.targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        elif attack.targeted:  # a copy of an object that was aimed at something
            attack.targeted, attack.attack_mode = False, "default"
        return attack(images, goal.labels), getattr(attack, "eps", None)
