"""The door of the room: an explainer attributes, the door feeds it in batches and checks what comes out."""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.limits import images_at_a_time
from heatprint.core.protocols import Explainer, Progress, silent
from heatprint.core.values import Batch, Explained
from heatprint.explainers.conservation import warn_of_leaks
from heatprint.explainers.target import Which, choose, contrast
from heatprint.models.predict import batch_size


def explain(
    classifier: Classifier,
    batch: Batch,
    method: Explainer,
    *,
    target: Tensor | Which = "predicted",
    progress: Progress = silent,
) -> Explained:
    """What a classifier relied on in each image, at the network's own (normalised) input.

    Args:
        classifier: The classifier; untouched afterwards.
        batch: Images.
        method: An explainer, e.g. ``explainers.make("lrp.sequential_preset_a_flat")``.
        target: Which class to explain: ``"predicted"``, ``"true"``, ``"runner-up"``, ``"contrast"`` (the true class
            minus the most likely other one), or classes, int64 [N].
        progress: Told how far it is.

    Returns:
        Relevance in the order of the batch, on the CPU.

    Warns:
        ConservationWarning: A layer kept more than half of its relevance, or doubled it.

    Raises:
        InvalidInput: Targets do not fit.
        Unsupported: The method has no rule for an operation of the network.
        BrokenContract: The relevance has another shape than the input, or is not finite.
    """
    _check(classifier, batch, target)
    parts = []
    usual = getattr(method, "at_once", max(1, batch_size(classifier) // 4))
    for rows in torch.split(torch.arange(len(batch)), images_at_a_time(usual)):
        parts.append(_explain_rows(classifier, batch, method, target, rows))
        progress(int(rows[-1]) + 1, len(batch))
    explained = _joined(batch, parts)
    warn_of_leaks(explained)
    return explained


def _check(classifier: Classifier, batch: Batch, target: Tensor | Which) -> None:
    side, count = classifier.size, len(classifier.classes)
    if not len(batch):
        raise InvalidInput("explain: there are no images.")
    if batch.pixels.shape[2:] != (side, side):
        raise InvalidInput(f"explain: {classifier.name!r} takes {side}x{side} images. Load them with size={side}.")
    if target in ("true", "contrast") and bool(((batch.labels < 0) | (batch.labels >= count)).any()):
        raise InvalidInput(f"explain: target={target!r} needs the true class of every image, 0 to {count - 1}.")
    if isinstance(target, Tensor) and (
        target.dtype != torch.int64
        or target.ndim != 1
        or len(target) != len(batch)
        or bool(((target < 0) | (target >= count)).any())
    ):
        raise InvalidInput(
            f"explain: {len(target)} targets ({target.dtype}) for {len(batch)} images; give one class per image, "
            f"0 to {count - 1}, as int64."
        )


def _explain_rows(
    classifier: Classifier, batch: Batch, method: Explainer, target: Tensor | Which, rows: Tensor
) -> Explained:
    device = classifier.device
    inputs = classifier.normalise(to_images(batch.pixels[rows].to(device)))
    if isinstance(target, Tensor):
        wanted, against, weighed = target[rows].to(device), None, target[rows].to(device)
    else:
        with torch.no_grad():
            logits = classifier.network(inputs)
        _require_finite(logits, f"{classifier.name!r} returns logits")
        wanted, against = choose(target, logits, batch.labels[rows].to(device))
        weighed = contrast(wanted, against, logits)
    part, _ = method.attribute(classifier, inputs, weighed)
    if part.relevance.shape != inputs.shape:
        raise BrokenContract(
            f"explain: {type(method).__name__} returned relevance {list(part.relevance.shape)} for inputs "
            f"{list(inputs.shape)}."
        )
    _require_finite(part.relevance, f"{type(method).__name__} returned relevance")
    return Explained(
        ids=tuple(batch.ids[row] for row in rows.tolist()),
        relevance=part.relevance.cpu(),
        target=wanted.cpu(),
        against=None if against is None else against.cpu(),
        score=part.score.cpu(),
        plan=part.plan,
        totals={name: total.cpu() for name, total in part.totals.items()},
        passed={name: total.cpu() for name, total in part.passed.items()},
        facts={name: fact.cpu() for name, fact in part.facts.items()},
    )


def _require_finite(values: Tensor, who: str) -> None:
    if not bool(values.isfinite().all()):
        raise BrokenContract(
            f"explain: {who} that are not finite. Look for NaN weights with model.state_dict(), or for a "
            "denominator of zero: use an epsilon rule."
        )


def _joined(batch: Batch, parts: list[Explained]) -> Explained:
    first = parts[0]
    return Explained(
        ids=batch.ids,
        relevance=torch.cat([p.relevance for p in parts]),
        target=torch.cat([p.target for p in parts]),
        against=None if first.against is None else torch.cat([p.against for p in parts if p.against is not None]),
        score=torch.cat([p.score for p in parts]),
        plan=first.plan,
        totals={name: torch.cat([p.totals[name] for p in parts]) for name in first.totals},
        passed={name: torch.cat([p.passed[name] for p in parts]) for name in first.passed},
        facts={name: torch.cat([p.facts[name] for p in parts]) for name in first.facts},
    )
