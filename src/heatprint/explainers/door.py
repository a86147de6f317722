"""The door of the room: an explainer attributes, the door feeds it in batches and checks what comes out."""

from __future__ import annotations

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract, InvalidInput
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Explainer, Progress, silent
from heatprint.core.values import Batch, Explained
from heatprint.models.predict import batch_size


def explain(
    classifier: Classifier,
    batch: Batch,
    method: Explainer,
    *,
    target: Tensor | None = None,
    progress: Progress = silent,
) -> Explained:
    """What a classifier relied on in each image, at the network's own (normalised) input.

    Args:
        classifier: The classifier; untouched afterwards.
        batch: Images.
        method: An explainer, e.g. ``explainers.make("lrp.sequential_preset_a_flat")``.
        target: Classes to explain, int64 [N]; without them the predicted one.
        progress: Told how far it is.

    Returns:
        Relevance in the order of the batch, on the CPU.

    Raises:
        InvalidInput: Targets do not fit.
        BrokenContract: The relevance has another shape than the input, or is not finite.
    """
    side, count = classifier.size, len(classifier.classes)
    if batch.pixels.shape[2:] != (side, side):
        raise InvalidInput(f"explain: {classifier.name!r} takes {side}x{side} images. Load them with size={side}.")
    if target is not None and (len(target) != len(batch) or bool(((target < 0) | (target >= count)).any())):
        raise InvalidInput(
            f"explain: {len(target)} targets for {len(batch)} images; give one class per image, 0 to {count - 1}."
        )
    parts: list[Explained] = []
    for rows in torch.split(torch.arange(len(batch)), max(1, batch_size(classifier) // 4)):
        inputs = classifier.normalise(to_images(batch.pixels[rows].to(classifier.device)))
        wanted = _predicted(classifier, inputs) if target is None else target[rows].to(classifier.device)
        part, _ = method.attribute(classifier, inputs, wanted)
        if part.relevance.shape != inputs.shape or not bool(part.relevance.isfinite().all()):
            raise BrokenContract(
                f"explain: {type(method).__name__} returned relevance {list(part.relevance.shape)} for inputs "
                f"{list(inputs.shape)}, or values that are not finite (a denominator of zero: use an epsilon rule)."
            )
        parts.append(part)
        progress(int(rows[-1]) + 1, len(batch))
    if not parts:
        raise InvalidInput("explain: there are no images.")
    return Explained(
        ids=batch.ids,
        relevance=torch.cat([p.relevance.cpu() for p in parts]),
        target=torch.cat([p.target.cpu() for p in parts]),
        score=torch.cat([p.score.cpu() for p in parts]),
        plan=parts[0].plan,
        totals={name: torch.cat([p.totals[name].cpu() for p in parts]) for name in parts[0].totals},
    )


@torch.no_grad()
def _predicted(classifier: Classifier, inputs: Tensor) -> Tensor:
    logits: Tensor = classifier.network(inputs)
    return logits.argmax(1)
