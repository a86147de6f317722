"""The images a forensic laboratory works with: kind by kind what was done to them, and what is measured of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.lattice import to_images, to_pixels
from heatprint.core.protocols import Progress, silent
from heatprint.core.store import Part
from heatprint.core.values import Batch
from heatprint.data.splits import sample, split
from heatprint.detectors.examples import CLEAN, KNOWN_MISTAKEN, MISTAKEN, Examples
from heatprint.detectors.features import FEATURES
from heatprint.detectors.features.squeezing import saved_as_jpeg
from heatprint.detectors.features.table import columns, measure
from heatprint.evaluation.detection import Rows
from heatprint.evaluation.forensics import Measured
from heatprint.models.predict import predict
from heatprint.study.corpus import Trial, gather
from heatprint.study.engines import Task
from heatprint.study.parts import Piece, Workshop, rows_of
from heatprint.study.progress import Watch

PARTS = {"fit": 0.5, "calibrate": 0.15, "test": 0.35}  # of the source images
SALT = "forensics"
MOST = 800  # images of one kind, besides clean ones
VERSION = 3
PART = 256  # images a crash may cost


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind:
    """Images that had the same done to them.

    Attributes:
        name: What tables call it.
        algorithm: What an identifier is to say.
        is_attack: Whether it has an aim.
        unseen: Never learned from.
        batch: The images.
        known: The classifier learned from their sources: they are learned from, and neither calibrate nor judge.
    """

    name: str
    algorithm: str
    is_attack: bool
    unseen: bool
    batch: Batch
    known: bool = False

    @property
    def folder(self) -> str:
        """Its name without blanks."""
        return self.name.replace(", ", "-").replace(" @", "-saved-").replace(" ", "-")


def gathered(
    classifier: Classifier,
    batch: Batch,
    learned: Batch | None,
    workshop: Workshop,
    trials: Sequence[Trial],
    *,
    seed: int,
    watch: Watch,
) -> list[Kind]:
    """Clean images first, then each trial's, each saved anew, and the classifier's mistakes on its own images."""
    kinds = [Kind(name=CLEAN, algorithm=CLEAN, is_attack=False, unseen=False, batch=batch)]
    for trial in trials:
        attacked = gather(classifier, batch, trial, workshop, seed=seed, watch=watch)
        kept = attacked.adversarial.take(_rows(attacked.success if trial.is_attack else ~attacked.skipped))
        kept = kept.take(sample(kept, MOST))
        kinds.append(
            Kind(name=trial.name, algorithm=trial.algorithm, is_attack=trial.is_attack, unseen=trial.unseen, batch=kept)
        )
    kinds += [again for one in list(kinds) for again in _saved_anew(classifier, one)]
    if learned is not None:
        wrong = learned.take(_rows(predict(classifier, learned.pixels).argmax(1) != learned.labels))
        wrong = wrong.take(sample(wrong, MOST))
        kinds.append(Kind(name=KNOWN_MISTAKEN, algorithm=CLEAN, is_attack=False, unseen=False, batch=wrong, known=True))
    return [one for one in kinds if len(one.batch)]


def measured(classifier: Classifier, kinds: Sequence[Kind], workshop: Workshop, watch: Watch) -> Measured:
    """All examples with their features; every family of every kind is kept by itself."""
    logits = torch.cat([predict(classifier, one.batch.pixels) for one in kinds])
    tables = {family: _table(classifier, family, kinds, workshop, watch) for family in _applicable(classifier)}
    lengths = [len(one.batch) for one in kinds]

    def spread(what: str) -> np.ndarray:
        return np.repeat([getattr(one, what) for one in kinds], lengths)

    labels = torch.cat([one.batch.labels for one in kinds])
    sources = [name for one in kinds for name in one.batch.ids]
    mistaken = (logits.argmax(1) != labels).numpy() & (spread("name") == CLEAN)
    names = np.where(mistaken, MISTAKEN, spread("name"))
    top = logits.sort(dim=1, descending=True).values
    examples = Examples(
        sources=tuple(sources), pixels=torch.cat([one.batch.pixels for one in kinds]), labels=labels,
        kinds=tuple(names.tolist()), names=tuple(spread("algorithm").tolist()), attacked=spread("is_attack"),
    )  # fmt: skip
    rows = Rows(sources=np.asarray(sources), kinds=names, attacked=spread("is_attack"),
                margins=(top[:, 0] - top[:, 1]).numpy())  # fmt: skip
    place = {name: row for row, name in enumerate(kinds[0].batch.ids)}
    originals = np.asarray([row if known else place[name] for row, (name, known) in
                            enumerate(zip(sources, spread("known"), strict=True))])  # fmt: skip
    return Measured(examples=examples, rows=rows, tables=tables, part=_parts(sources, spread("known")),
                    unseen=spread("unseen"), originals=originals)  # fmt: skip


def _applicable(classifier: Classifier) -> list[str]:
    """Families that this network has what it takes for: some ask for a dense layer or for rules of its layers."""
    grey = torch.full((1, 3, classifier.size, classifier.size), 128, dtype=torch.uint8)
    found = []
    for family in FEATURES.names():
        try:
            measure(classifier, grey, (family,))
        except (InvalidInput, Unsupported):
            continue
        found.append(family)
    return found


def _parts(sources: Sequence[str], known: np.ndarray) -> np.ndarray:
    """Part of each row, by its source image."""
    part = np.empty(len(sources), dtype=object)
    part[known] = "fit"
    others = np.flatnonzero(~known)
    for name, index in split([sources[int(row)] for row in others], PARTS, salt=SALT).items():
        part[others[index.numpy()]] = name
    return part.astype(str)


def _table(classifier: Classifier, family: str, kinds: Sequence[Kind], workshop: Workshop, watch: Watch) -> np.ndarray:
    """float32 [N, columns] of all kinds, one below the other."""
    tables: list[np.ndarray] = []
    whole = sum(len(one.batch) for one in kinds)
    with watch.step(f"features: {family}") as progress:
        for one in kinds:
            before = sum(map(len, tables))

            def shown(done: int, total: int, note: object = "", before: int = before, name: str = one.name) -> None:
                del total, note
                progress(before + done, whole, name)

            pieces = [
                Piece(
                    key=(VERSION, classifier.digest, columns((family,)), *one.batch.identity_of(rows)),
                    images=len(rows),
                    task=lambda one=one, rows=rows: Task(  # type: ignore[misc]
                        function=features_part, arguments={"family": family, "pixels": one.batch.pixels[rows]}
                    ),
                )
                for rows in rows_of(len(one.batch), PART)
            ]
            step = f"forensics/features/{family}/{one.folder}"
            tables += [part.arrays["features"] for part in workshop.parts(step, classifier, pieces, shown)]
    return np.concatenate(tables)


def features_part(classifier: Classifier, family: str, pixels: Tensor, progress: Progress = silent) -> Part:
    """What a family measures of one part."""
    return Part(arrays={"features": measure(classifier, pixels, (family,), progress=progress)})


def _resized(pixels: Tensor) -> Tensor:
    """Enlarged by half, rounded to 8 bits, and brought back."""
    side = pixels.shape[-1]
    large = to_images(to_pixels(_scaled(to_images(pixels), side * 3 // 2)))
    return _scaled(large, side)


def _scaled(images: Tensor, side: int) -> Tensor:
    return functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)


COPIES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "@95": lambda pixels: saved_as_jpeg(pixels, 95),
    "@90": lambda pixels: saved_as_jpeg(pixels, 90),
    "@resized": _resized,
}
"""How images are saved anew: JPEG files of two qualities, and enlarged and brought back."""


def _saved_anew(classifier: Classifier, kind: Kind) -> list[Kind]:
    """Copies: of attacks those that still fool the classifier, of clean images a fifth each, which stay clean."""
    if not kind.is_attack and kind.name != CLEAN:
        return []
    made = []
    for number, (suffix, copy) in enumerate(COPIES.items()):
        some = kind.batch if kind.is_attack else kind.batch.take(list(range(number, len(kind.batch), 5)))
        again = some.with_pixels(torch.cat([to_pixels(copy(part)) for part in torch.split(some.pixels, 256)]))
        if kind.is_attack and len(again):
            again = again.take(_rows(predict(classifier, again.pixels).argmax(1) != again.labels))
        made.append(replace(kind, name=f"{kind.name} {suffix}", batch=again))
    return made


def _rows(chosen: Tensor) -> Tensor:
    return chosen.nonzero().squeeze(1)
