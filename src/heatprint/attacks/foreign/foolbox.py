"""Attacks of Foolbox under our referee."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from heatprint.attacks.foreign.base import Foreign
from heatprint.attacks.foreign.view import View
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal
from heatprint.core.lattice import Level


@dataclass(frozen=True, kw_only=True)
class Foolbox(Foreign):
    """An attack of Foolbox (Rauber et al. 2020, JOSS 5(53), 2607); see `heatprint.attacks.foreign.base.Foreign`.

    Of the three results of Foolbox the clipped one is taken. Which of its attacks can aim shows only when one is
    asked to, so all are declared to; one that cannot says so with an error.

    Attributes:
        attack: Class name in `foolbox.attacks`, e.g. ``"LinfPGD"``, ``"L2DeepFoolAttack"``.
        settings: Its arguments.
        eps: Radius in the attack's own distance; None for a minimal attack, which then has none. 0 returns the
            images unchanged.
    """

    attack: str = "LinfPGD"
    eps: Level | None = 8 / 255

    package = distribution = "foolbox"
    module = "foolbox.attacks"
    paper = "Rauber, Zimmermann, Bethge, Brendel 2020, JOSS 5(53), 2607"
    one_step = frozenset({"FGM", "FGSM", "L1FastGradientAttack", "L2FastGradientAttack", "LinfFastGradientAttack"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps is not None and self.eps < 0:
            raise InvalidInput(f"Foolbox: eps = {self.eps} must be 0 or more, or None for a minimal attack.")
        kind = self._kind() if self.given is None else type(self.given.held)
        if self.eps is None and issubclass(kind, self._library().base.FixedEpsilonAttack):
            raise InvalidInput(f"Foolbox: {self.attack} needs a radius. Write eps, e.g. '8/255'.")

    @staticmethod
    def _first() -> int:
        return 0

    def _is_attack(self, kind: Any) -> bool:
        base: type[Any] = self._library().Attack
        return inspect.isclass(kind) and issubclass(kind, base) and not inspect.isabstract(kind)

    def _aims(self) -> bool:
        return True

    def _run(self, view: View, images: Tensor, goal: Goal) -> tuple[Tensor, object]:
        from foolbox.criteria import Misclassification, TargetedMisclassification
        from foolbox.models.pytorch import PyTorchModel

        if self.eps == 0:
            return images, 0.0
        attack = self._kind()(**self.settings) if self.given is None else copy.deepcopy(self.given.held)
        network = PyTorchModel(view, bounds=(0, 1), device=images.device)
        wanted = TargetedMisclassification if goal.targeted else Misclassification
        try:
            _, clipped, _ = attack(network, images, wanted(goal.labels), epsilons=self.eps)
        except ValueError as error:
            if goal.targeted and "criterion" in str(error):
                raise InvalidInput(f"Foolbox: {self.attack} cannot aim at a class; leave targets out.") from error
            raise
        return clipped, self.eps
