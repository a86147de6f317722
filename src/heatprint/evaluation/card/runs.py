"""What the checks read: one set of attacks on one set of images, each made once, when a check first asks for it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from heatprint.attacks import attack
from heatprint.attacks.apgd import APGD
from heatprint.attacks.noise import Noise
from heatprint.attacks.pgd import PGD
from heatprint.attacks.square import Square
from heatprint.core.classifier import Classifier
from heatprint.core.goals import untargeted
from heatprint.core.lattice import LEVELS, whole_levels
from heatprint.core.protocols import Attack, Progress, silent
from heatprint.core.streams import stream
from heatprint.core.values import Attacked, Batch
from heatprint.evaluation.card.connected import Connected
from heatprint.evaluation.card.settings import Effort, ThreatModel
from heatprint.evaluation.card.traced import Traced
from heatprint.models.predict import batch_size, predict

SCALES = (0.01, 1.0, 100.0)  # of the logits, for the textbook loss
CURVE = (0.5, 1.0, 2.0, 4.0)  # radii in units of eps
NEAR = 0.25 / LEVELS  # step of the finite differences, pixel values in [0, 1]
STRIDE = 8 / 255  # of one step of the unbounded attack, per channel


class Runs:
    """The attacks and measurements, each made when first asked for and then kept.

    Rows of every tensor are the images, in order. An image "stands" when it is classified correctly before an attack
    and after it; all attacks but the one without a radius stay within the threat model.

    Args:
        classifier: The one on trial.
        batch: Images with true labels.
        threat: Norm and radius.
        effort: How hard to try.
        adaptive: Whether an attack written for this very defence is part of the evaluation.
        original: The classifier before it was defended, if there was one.
        seed: Of everything random.
        progress: Told of each attack by name.
    """

    def __init__(
        self,
        classifier: Classifier,
        batch: Batch,
        *,
        threat: ThreatModel,
        effort: Effort,
        adaptive: bool = False,
        original: Classifier | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> None:
        self.raw, self.batch = classifier, batch
        self.classifier = replace(
            classifier, network=Connected(classifier.network), trainable=Connected(classifier.trainable)
        )
        self.threat, self.effort, self.adaptive, self.original = threat, effort, adaptive, original
        self.seed, self.progress = seed, progress
        self.stood: dict[str, Tensor] = {}

    # --- without an attack --------------------------------------------------------------------------------

    @cached_property
    def logits(self) -> Tensor:
        """Logits [N, K] of the clean images."""
        return predict(self.raw, self.batch.pixels)

    @cached_property
    def right(self) -> Tensor:
        """Which clean images are classified correctly, bool [N]."""
        return self.logits.argmax(1) == self.batch.labels

    @cached_property
    def repeats(self) -> Tensor:
        """Logits [5, N, K] of five forward passes."""
        return torch.stack([predict(self.raw, self.batch.pixels) for _ in range(5)])

    @cached_property
    def random(self) -> bool:
        """Whether equal images get different logits."""
        size = self.repeats.norm(dim=2).amax(0).clamp_min(1e-12)
        return bool(((self.repeats - self.repeats[0]).norm(dim=2).amax(0) / size > 1e-4).any())

    @cached_property
    def gradient(self) -> Tensor:
        """Gradient [M, 3, H, W] of the margin at the images classified correctly; NaN where it is not finite."""
        found = []
        for images, labels in self._parts():
            leaf = images.requires_grad_(True)
            with torch.enable_grad():
                lead = untargeted(labels).margin(self.raw(leaf))
                if not lead.requires_grad:
                    found.append(torch.zeros_like(images).cpu())
                    continue
                (slope,) = torch.autograd.grad(lead.sum(), leaf, allow_unused=True)
            found.append((torch.zeros_like(images) if slope is None else slope).detach().cpu())
        return torch.cat(found)

    @cached_property
    def nearby(self) -> tuple[Tensor, Tensor]:
        """How the margin changes a small step this way and that along random signs: truly, and by the gradient.

        Two tensors [directions, M], for the images classified correctly.
        """
        true, told = [], []
        for number in range(self.effort.directions):
            moved = []
            for images, labels, slope, signs in self._signed(number):
                up, down = (self._lead((images + way * NEAR * signs), labels) for way in (1, -1))
                moved.append(torch.stack([up - down, 2 * NEAR * (slope.nan_to_num(0, 0, 0) * signs).sum((1, 2, 3))]))
            both = torch.cat(moved, 1).double().cpu()
            true.append(both[0])
            told.append(both[1])
        return torch.stack(true), torch.stack(told)

    @cached_property
    def shaken(self) -> Tensor:
        """Relative change of the margin, at most 1, at random points within eps, [directions, M]."""
        rows, radius = [], self.threat.eps
        for number in range(self.effort.directions):
            part = []
            for images, labels, _, signs in self._signed(number):
                if self.threat.norm == "l2":
                    radius = self.threat.eps / math.sqrt(signs[0].numel())
                before, after = self._lead(images, labels), self._lead((images + radius * signs).clamp(0, 1), labels)
                part.append(((after - before).abs() / before.abs().clamp_min(1e-12)).clamp_max(1).cpu())
            rows.append(torch.cat(part))
        return torch.stack(rows)

    # --- attacks ------------------------------------------------------------------------------------------

    @cached_property
    def single(self) -> Tensor:
        """What stands after one step of the full radius: FGSM, or its like in L2."""
        return self._kept("single step", PGD(**self._ball, step=self.threat.eps, steps=1, random_start=False))

    @cached_property
    def traced(self) -> Attacked:
        """The descent on the margin, with its way."""
        found = self._made("traced descent", Traced(**self._ball, steps=self.effort.way))
        self.stood["traced descent"] = _stands(found)
        return found

    @cached_property
    def textbook(self) -> dict[float, Tensor]:
        """What stands after the textbook cross-entropy of the logits times each scale."""
        return {
            scale: self._kept(f"cross-entropy x {scale:g}", Traced(**self._ball, steps=self.effort.way, scale=scale))
            for scale in SCALES
        }

    @cached_property
    def short(self) -> Tensor:
        """What stands after APGD on the margin."""
        return self._kept("APGD", self._apgd(self.threat.eps, self.effort.steps))

    @cached_property
    def long(self) -> Tensor:
        """What stands after more steps and starts of APGD, too."""
        method = APGD(**self._ball, steps=self.effort.more, restarts=self.effort.restarts, loss="margin")
        return self._kept("longer APGD", method, among=self.short)

    @cached_property
    def square(self) -> Tensor:
        """What stands after all of these and Square, which sees no gradient."""
        return self._kept("Square", Square(**self._ball, queries=self.effort.queries), among=self.long)

    @cached_property
    def noise(self) -> Tensor:
        """What stands after random noise of the full radius."""
        return self._kept("noise", Noise(**self._ball))

    @cached_property
    def curve(self) -> dict[float, Tensor]:
        """What stands after APGD within each radius, by growing radius."""
        wanted = [self.threat.eps * part for part in CURVE]
        if self.threat.norm == "linf":
            wanted = [level / LEVELS for level in sorted({min(whole_levels(eps), LEVELS) for eps in wanted} - {0})]
        own = whole_levels(self.threat.eps) / LEVELS if self.threat.norm == "linf" else self.threat.eps
        return {
            eps: self.short if eps == own else _stands(self._made("APGD", self._apgd(eps, self.effort.steps)))
            for eps in wanted
        }

    @cached_property
    def unbounded(self) -> Tensor:
        """What stands after a descent that may turn the image into any other."""
        far = 1.0 if self.threat.norm == "linf" else math.sqrt(self.batch.pixels[0].numel())
        method = PGD(
            norm=self.threat.norm, eps=far, step=far * STRIDE, steps=self.effort.far, random_start=False, loss="margin"
        )
        return _stands(self._made("no radius", method))

    @cached_property
    def old(self) -> Attacked | None:
        """One step of the full radius on the original classifier; None without one."""
        if self.original is None:
            return None
        method = PGD(**self._ball, step=self.threat.eps, steps=1, random_start=False)
        return attack(self.original, self.batch, method, seed=self.seed, progress=self._told("single step, original"))

    @cached_property
    def transferred(self) -> Tensor | None:
        """What stands when the images are changed by APGD against the original classifier; None without one."""
        if self.original is None:
            return None
        method = self._apgd(self.threat.eps, self.effort.steps)
        made = attack(self.original, self.batch, method, seed=self.seed, progress=self._told("APGD, original"))
        guess = predict(self.raw, made.adversarial.pixels).argmax(1)
        self.stood["transfer"] = self.right & (guess == self.batch.labels)
        return self.stood["transfer"]

    @property
    def worst(self) -> Tensor:
        """Which images stand after every attack made so far within the threat model, bool [N]."""
        standing = self.right.clone()
        for each in self.stood.values():
            standing &= each
        return standing

    # --- parts --------------------------------------------------------------------------------------------

    @property
    def _ball(self) -> dict[str, Any]:
        return {"norm": self.threat.norm, "eps": self.threat.eps}

    def _apgd(self, eps: float, steps: int) -> APGD:
        return APGD(norm=self.threat.norm, eps=eps, steps=steps, loss="margin")

    def _made(self, name: str, method: Attack, batch: Batch | None = None) -> Attacked:
        return attack(self.classifier, batch or self.batch, method, seed=self.seed, progress=self._told(name))

    def _kept(self, name: str, method: Attack, among: Tensor | None = None) -> Tensor:
        """What stands after an attack, of the images `among`, and is remembered for the worst case."""
        rows = torch.arange(len(self.batch)) if among is None else among.nonzero().squeeze(1)
        standing = torch.zeros(len(self.batch), dtype=torch.bool)
        if len(rows):
            standing[rows] = _stands(self._made(name, method, self.batch.take(rows)))
        self.stood[name] = standing
        return standing

    def _told(self, name: str) -> Progress:
        def told(done: int, total: int, note: object = "") -> None:
            del note
            self.progress(done, total, name)

        return told

    def _parts(self) -> list[tuple[Tensor, Tensor]]:
        """Images and labels of the batch that are classified correctly, in parts that suit the device."""
        own, device = self.batch.take(self.right.nonzero().squeeze(1)), self.raw.device
        size = batch_size(self.raw)
        return [(images.to(device), labels.to(device)) for images, labels in
                zip(torch.split(own.images, size), torch.split(own.labels, size), strict=True)]  # fmt: skip

    def _signed(self, number: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The parts with their gradients and the random signs of a direction."""
        out, at = [], 0
        rng = stream(self.seed, "card/directions", counter=number)
        for images, labels in self._parts():
            signs = torch.from_numpy(rng.integers(0, 2, tuple(images.shape)) * 2 - 1).to(images)
            out.append((images, labels, self.gradient[at : at + len(images)].to(images), signs))
            at += len(images)
        return out

    @torch.no_grad()
    def _lead(self, images: Tensor, labels: Tensor) -> Tensor:
        return untargeted(labels).margin(self.raw(images))


def _stands(attacked: Attacked) -> Tensor:
    return ~attacked.skipped & ~attacked.success
