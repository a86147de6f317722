"""The door: every check on one set of attacks, and the card they make."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from heatprint.core.classifier import Classifier
from heatprint.core.display import Displayed
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Progress, silent
from heatprint.core.streams import torch_seed
from heatprint.core.values import Batch
from heatprint.evaluation.card.black_box import BlackBox, Chance, Transfer
from heatprint.evaluation.card.claims import Adaptive, RoundTrip, SampleSize, Stated
from heatprint.evaluation.card.defended import OldAdversarials, SingleStep
from heatprint.evaluation.card.failure import Indicators
from heatprint.evaluation.card.findings import Check, Finding, Verdict, worst
from heatprint.evaluation.card.gradients import Available, Faithful
from heatprint.evaluation.card.loss import EnoughClasses, ScaleInvariance
from heatprint.evaluation.card.outputs import Logits, Randomised
from heatprint.evaluation.card.radius import Iterations, Monotone, Unbounded
from heatprint.evaluation.card.runs import Runs
from heatprint.evaluation.card.settings import Effort, ThreatModel
from heatprint.evaluation.shares import share

CHECKS: tuple[Check, ...] = (
    Randomised(), Logits(), Available(), Faithful(), EnoughClasses(), ScaleInvariance(), SingleStep(), Iterations(),
    Monotone(), Unbounded(), Chance(), BlackBox(), Transfer(), OldAdversarials(), Indicators(), RoundTrip(),
    Adaptive(), Stated(), SampleSize(),
)  # fmt: skip
"""In the order of the card. The last one counts what stands after all attacks, so it comes last."""

QUICK, ASSUMED = Effort(), ThreatModel()


@dataclass(frozen=True, kw_only=True, eq=False)
class Card(Displayed):
    """What all checks say of one classifier.

    Attributes:
        name: Of the classifier.
        threat: What it was attacked within.
        effort: How hard.
        seed: Of everything random.
        clean: Share of images classified correctly, with counts and a 95 % interval.
        standing: Share that also stands after every attack of the card: worst case per image, an upper bound.
        findings: One of each check, in order.
    """

    name: str
    threat: ThreatModel
    effort: Effort
    seed: int
    clean: dict[str, Any]
    standing: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Verdict:
        """The gravest verdict."""
        return worst(*(finding.verdict for finding in self.findings))

    def status(self, *, strict: bool = False) -> int:
        """Exit status for continuous integration: 1 where a check fails, 0 otherwise; strict counts WARN as failure."""
        return int(self.worst == "FAIL" or (strict and self.worst == "WARN"))

    def of(self, verdict: Verdict) -> tuple[str, ...]:
        """The names of the checks with this verdict."""
        return tuple(finding.check for finding in self.findings if finding.verdict == verdict)

    @property
    def headline(self) -> str:
        """What may be said, in a sentence or two."""
        failed = self.of("FAIL")
        count = f"{self.standing['count']} of {self.standing['total']} images"
        if failed:
            return (
                f"{len(failed)} of {len(self.findings)} checks fail: what stands after these attacks ({count}) says "
                "nothing of what would stand after better ones."
            )
        low, high = 100 * self.standing["low"], 100 * self.standing["high"]
        return (
            f"No check fails. {count} stand after every attack of this card within {self.threat.spelled} (95 % "
            f"interval {low:.1f} to {high:.1f} %): an upper bound, since a better attack may fell more."
        )

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file; equal cards give equal text."""
        return {
            "classifier": self.name,
            "worst": self.worst,
            "headline": self.headline,
            "clean": self.clean,
            "standing": self.standing,
            "threat": asdict(self.threat),
            "effort": asdict(self.effort),
            "seed": self.seed,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def lines(self, width: int = 100) -> list[str]:
        """Everything as text: the table, then what to do."""
        wide = max(len(finding.check) for finding in self.findings) + 2
        lead = " " * (6 + wide)
        out = [f"{self.name}: {self.clean['count']} of {self.clean['total']} images right, {self.threat.spelled}", ""]
        for one in self.findings:
            verdict = "-" if one.verdict == "not applicable" else one.verdict
            first = f"{verdict:6}{one.check:{wide}}"
            out += textwrap.wrap(one.why, max(width, len(lead) + 40), initial_indent=first, subsequent_indent=lead)
        todo = [one for one in self.findings if one.verdict in ("WARN", "FAIL")]
        out += ["", "what to do"] if todo else []
        for one in sorted(todo, key=lambda one: one.verdict):  # FAIL before WARN
            text = f"{one.verdict} {one.check}: {one.do}"
            out += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")
        return [*out, "", *textwrap.wrap(self.headline, width)]


def card(
    classifier: Classifier,
    batch: Batch,
    *,
    threat: ThreatModel | None = None,
    effort: Effort = QUICK,
    adaptive: bool = False,
    original: Classifier | None = None,
    checks: Sequence[Check] = CHECKS,
    seed: int = 0,
    progress: Progress = silent,
) -> Card:
    """Check whether the usual attacks can be believed about a classifier.

    64 to 128 images take a few minutes on two cores for a small network at 112 pixels.

    Args:
        classifier: The one on trial; bit-identical afterwards.
        batch: Images it was not trained on, with true labels.
        threat: Within what it is attacked; without one, linf 2/255, and the card says that nobody stated it.
        effort: How hard the card tries.
        adaptive: Whether an attack written for this very defence is part of the evaluation.
        original: The classifier before it was defended: two checks need it.
        checks: Which ones, in order.
        seed: Of everything random; also a network that draws at random gives the same card again, on the CPU.
        progress: Told of each check, and of each attack by name.

    Raises:
        InvalidInput: No images, none classified correctly, logits that are not finite, or an original of other
            classes or another size.
    """
    at = 0

    def inner(done: int, total: int, note: object = "") -> None:
        progress(at, len(checks), f"{note} {done}/{total}")

    runs = Runs(classifier, batch, threat=threat or ASSUMED, effort=effort, adaptive=adaptive, original=original,
                seed=seed, progress=inner)  # fmt: skip
    findings = []
    with torch.random.fork_rng(devices=[classifier.device] if classifier.device.type == "cuda" else []):
        torch.manual_seed(torch_seed(seed, "card"))
        _check(runs)
        for at, check in enumerate(checks):
            progress(at, len(checks), check.name)
            findings.append(check.judge(runs))
    progress(len(checks), len(checks), "")
    clean, standing = share(runs.right.sum(), len(batch)), share(runs.worst.sum(), len(batch))
    assert clean is not None  # there are images
    assert standing is not None
    return Card(name=classifier.name, threat=runs.threat, effort=effort, seed=seed, clean=clean, standing=standing,
                findings=tuple(findings))  # fmt: skip


def _check(runs: Runs) -> None:
    classifier, original = runs.raw, runs.original
    if not len(runs.batch):
        raise InvalidInput("card: there are no images; give 64 or more.")
    if runs.batch.pixels.shape[2:] != (classifier.size, classifier.size):
        raise InvalidInput(
            f"card: images are {list(runs.batch.pixels.shape[2:])}, {classifier.name!r} takes "
            f"{classifier.size}x{classifier.size}. Load them with size={classifier.size}."
        )
    if original is not None and (original.classes, original.size) != (classifier.classes, classifier.size):
        raise InvalidInput(
            f"card: the original has {len(original.classes)} classes at {original.size} pixels, {classifier.name!r} "
            f"{len(classifier.classes)} at {classifier.size}. Give the classifier that was defended."
        )
    if not bool(runs.logits.isfinite().all()):
        raise InvalidInput(f"card: {classifier.name!r} returns logits that are not finite for some images.")
    if not bool(runs.right.any()):
        raise InvalidInput(
            f"card: {classifier.name!r} classifies none of {len(runs.batch)} images correctly, so there is nothing to "
            "attack. Do the labels belong to its classes?"
        )
