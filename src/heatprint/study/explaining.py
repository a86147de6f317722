"""Heat maps, signatures and comparisons of many images, part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.protocols import Explainer, Progress, Signer, silent
from heatprint.core.store import Part
from heatprint.core.values import Batch
from heatprint.models.predict import predict
from heatprint.signatures import sign
from heatprint.signatures.maps import heat_maps
from heatprint.study.before_after import measured
from heatprint.study.engines import Task
from heatprint.study.parts import Piece, Workshop, rows_of

VERSION = 3  # raise it when a part changes for equal settings
PART = 256  # images a crash may cost
PAIRS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class Signed:
    """Signatures of some images.

    Attributes:
        vectors: float32 [N, D].
        predicted: int64 [N], the class of each.
    """

    vectors: np.ndarray
    predicted: np.ndarray


def signed(
    workshop: Workshop, step: str, classifier: Classifier, batch: Batch, signer: Signer, progress: Progress = silent
) -> Signed:
    """The signature of each image; parts that the run folder has are read."""
    found = _over(workshop, step, classifier, batch, signed_part, {"signer": signer}, progress)
    return Signed(vectors=found["signatures"], predicted=found["predicted"])


def mapped(
    workshop: Workshop,
    step: str,
    classifier: Classifier,
    batch: Batch,
    explainer: Explainer,
    *,
    side: int,
    progress: Progress = silent,
) -> np.ndarray:
    """The pooled heat map of each image, float32 [N, side, side]; parts that the run folder has are read."""
    about = {"explainer": explainer, "side": side}
    return _over(workshop, step, classifier, batch, mapped_part, about, progress)["maps"]


def compared(
    workshop: Workshop,
    step: str,
    classifier: Classifier,
    clean: Batch,
    changed: Batch,
    explainer: Explainer,
    progress: Progress = silent,
) -> list[Part]:
    """How far the explanation of each image moved; parts that the run folder has are read."""
    pieces = [
        Piece(
            key=(VERSION, classifier.digest, explainer, *clean.identity_of(rows), changed.prints[rows.numpy()]),
            images=len(rows),
            task=lambda rows=rows: Task(  # type: ignore[misc]
                function=compared_part,
                arguments={"clean": clean.take(rows), "changed": changed.take(rows), "explainer": explainer},
            ),
        )
        for rows in rows_of(len(clean), PAIRS)
    ]
    return list(workshop.parts(step, classifier, pieces, progress))


def signed_part(classifier: Classifier, batch: Batch, signer: Signer, progress: Progress = silent) -> Part:
    """Signatures and predictions of one part."""
    vectors = sign(classifier, batch, signer, progress=progress).vectors
    return Part(arrays={"signatures": vectors, "predicted": predict(classifier, batch.pixels).argmax(1).numpy()})


def mapped_part(
    classifier: Classifier, batch: Batch, explainer: Explainer, side: int, progress: Progress = silent
) -> Part:
    """Heat maps of one part."""
    return Part(arrays={"maps": heat_maps(classifier, batch, explainer, side=side, progress=progress)})


def compared_part(
    classifier: Classifier, clean: Batch, changed: Batch, explainer: Explainer, progress: Progress = silent
) -> Part:
    """Comparisons of one part."""
    return measured(classifier, clean, changed, explainer, progress)


def _over(
    workshop: Workshop,
    step: str,
    classifier: Classifier,
    batch: Batch,
    function: Callable[..., Part],
    about: Mapping[str, Any],
    progress: Progress,
) -> dict[str, np.ndarray]:
    """The arrays of a function of the classifier and some images, over all images."""
    if not len(batch):
        raise InvalidInput(f"{step}: there are no images.")
    pieces = [
        Piece(
            key=(VERSION, classifier.digest, about, *batch.identity_of(rows)),
            images=len(rows),
            task=lambda rows=rows: Task(function=function, arguments={"batch": batch.take(rows), **about}),  # type: ignore[misc]
        )
        for rows in rows_of(len(batch), PART)
    ]
    parts = list(workshop.parts(step, classifier, pieces, progress))
    return {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
