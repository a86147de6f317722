"""Attacks of the Adversarial Robustness Toolbox under our referee."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatprint.attacks.foreign.base import Foreign
from heatprint.attacks.foreign.view import View
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Goal


@dataclass(frozen=True, kw_only=True)
class ART(Foreign):
    """An evasion attack of ART (Nicolae et al. 2018, arXiv:1807.01069); see `heatprint.attacks.foreign.base.Foreign`.

    It is given a `PyTorchClassifier` for pixels in [0, 1] without preprocessing, and the true
    labels or targets, one-hot.

    Attributes:
        attack: Class name in `art.attacks.evasion`, e.g. ``"FastGradientMethod"``, ``"HopSkipJump"``.
        settings: Its arguments without the estimator; ``targeted`` follows the goal. ``batch_size`` is set to ours
            and ``verbose`` to False where it is not named.
    """

    attack: str = "ProjectedGradientDescent"

    package = "art"
    distribution = "adversarial-robustness-toolbox"
    module = "art.attacks.evasion"
    paper = "Nicolae, Sinn, Tran et al. 2018, arXiv:1807.01069"
    one_step = frozenset({"FastGradientMethod"})

    def __post_init__(self) -> None:
        super().__post_init__()
        range_ = None if self.given is None else self.given.held.estimator.clip_values
        range_ = (0, 1) if range_ is None else range_
        if tuple(map(float, range_)) != (0, 1):
            raise InvalidInput(
                f"ART: the estimator of {self.attack} has clip_values = {tuple(map(float, range_))}. Pixels are in "
                "[0, 1] here: make it with clip_values=(0, 1), and the attack's eps to fit."
            )

    def _is_attack(self, kind: Any) -> bool:
        from art.attacks import EvasionAttack

        return inspect.isclass(kind) and issubclass(kind, EvasionAttack) and not inspect.isabstract(kind)

    def _aims(self) -> bool:
        kind = self._kind() if self.given is None else type(self.given.held)
        return "targeted" in kind.attack_params

    def _bound(self, estimator: Any, batch: int, targeted: bool) -> Any:
        """The attack, made or copied, on this estimator; in a copy every reference to the old one is replaced."""
        if self.given is not None:
            attack = copy.deepcopy(self.given.held, {id(self.given.held.estimator): estimator})
        else:
            known = inspect.signature(self._kind()).parameters
            ours = {"batch_size": batch, "verbose": False}
            chosen = {name: value for name, value in ours.items() if name in known} | dict(self.settings)
            attack = self._kind()(estimator, **chosen)
        if self._aims():
            attack.set_params(targeted=targeted)
        return attack

    def _run(self, view: View, images: Tensor, goal: Goal) -> tuple[Tensor, object]:
        from art.estimators.classification import PyTorchClassifier

        classes = view.classes
        estimator = PyTorchClassifier(
            model=view,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type="cpu" if images.device.type == "cpu" else "gpu",
        )
        attack = self._bound(estimator, len(images), goal.targeted)
        wanted = F.one_hot(goal.labels, classes).float()
        made = attack.generate(x=images.cpu().numpy(), y=wanted.cpu().numpy())
        return torch.from_numpy(made), getattr(attack, "eps", None)
