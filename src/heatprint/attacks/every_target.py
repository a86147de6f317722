"""The paper's first untargeted strategy: aim at every other class in turn, and keep the least modified image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from heatprint.attacks.door import attack
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.norms import distances
from heatprint.core.protocols import Attack, Progress, silent
from heatprint.core.values import Attacked, Batch


def attack_every_target(
    classifier: Classifier, batch: Batch, method: Attack, *, progress: Progress = silent, **options: Any
) -> Attacked:
    """Attack each image once per wrong class, and keep the attempt that changed it least.

    Klawikowska et al. 2020, section 2.1, name two ways to attack without a target: (a) try every target and keep
    the least modified image, which is this; (b) lower the true class, which is `attack` without targets. With two
    classes both ask for the same.

    Args:
        classifier: The victim.
        batch: Images and true labels.
        method: An attack that can be targeted.
        progress: Told how far it is, over all targets.
        options: Seed, criterion and budget as for `attack`; a budget holds for each target.

    Returns:
        As `attack`, with queries summed over the targets. Successes go before failures, then the distance in the
        attack's own norm decides, then L2. The trace ``target`` is the class aimed at in the attempt kept.

    Raises:
        InvalidInput: The attack cannot be targeted.
    """
    if method.taxonomy.specificity == "untargeted":
        raise InvalidInput(f"attack_every_target: {type(method).__name__} cannot aim at a class. Use attack(...).")
    count = len(classifier.classes)
    best: Attacked | None = None
    for shift in range(1, count):
        targets = (batch.labels + shift) % count

        def shifted(done: int, total: int, note: object = "", shift: int = shift) -> None:
            progress((shift - 1) * total + done, (count - 1) * total, note)

        tried = attack(classifier, batch, method, targets=targets, progress=shifted, **options)
        tried = replace(tried, trace={**tried.trace, "target": targets})
        best = tried if best is None else _merged(best, tried, method.taxonomy.norm)
    assert best is not None
    return best


def _merged(one: Attacked, other: Attacked, norm: str) -> Attacked:
    """Per image the better of two attempts, with the queries of both."""
    wins = _rank(other, norm) < _rank(one, norm)
    pixels = _where(wins, other.adversarial.pixels, one.adversarial.pixels)
    late = torch.where(other.first_hit >= 0, other.first_hit + one.forwards, -1)
    return replace(
        one,
        adversarial=one.clean.with_pixels(pixels),
        distance=distances(one.clean.pixels, pixels),
        first_hit=torch.where(one.first_hit >= 0, one.first_hit, late),
        trace={name: _where(wins, value, one.trace[name]) for name, value in other.trace.items()},
        success=_where(wins, other.success, one.success),
        step=_where(wins, other.step, one.step),
        logits=_where(wins, other.logits, one.logits),
        forwards=one.forwards + other.forwards,
        backwards=one.backwards + other.backwards,
    )


def _rank(attacked: Attacked, norm: str) -> Tensor:
    """What to minimise, float64 [N]: failures after all successes, then the norm, then L2."""
    first: Tensor = getattr(attacked.distance, norm).double()
    return torch.where(attacked.success, 0.0, 1e12).double() + first + 1e-6 * attacked.distance.l2


def _where(wins: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(wins.view(-1, *[1] * (new.ndim - 1)), new, old)
