"""Attacked images as parts of a run folder, and back: lossless PNG in the `{bytes, path}` form others can open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from heatprint.core.lattice import decode_pngs, encode_pngs
from heatprint.core.norms import Distances, distances
from heatprint.core.scratch import room
from heatprint.core.store import Part
from heatprint.core.values import Attacked, Batch, join

COLUMNS = ("success", "skipped", "step", "forwards", "backwards", "first_hit")
LOGITS = ("clean_logits", "logits")


def to_part(attacked: Attacked, classes: Sequence[str]) -> Part:
    """One row per image; logits and traces as arrays."""
    before, after = attacked.clean_logits.softmax(1), attacked.logits.softmax(1)
    ids = attacked.clean.ids
    rows = {
        "id": list(ids),
        "label": [classes[i] for i in attacked.clean.labels],
        "predicted_before": [classes[i] for i in before.argmax(1)],
        "predicted": [classes[i] for i in after.argmax(1)],
        "confidence_before": before.amax(1).tolist(),
        "confidence": after.amax(1).tolist(),
        "success": attacked.success.tolist(),
        "skipped": attacked.skipped.tolist(),
        "step": attacked.step.tolist(),
        **{f.name: getattr(attacked.distance, f.name).tolist() for f in fields(Distances)},
        "forwards": attacked.forwards.tolist(),
        "backwards": attacked.backwards.tolist(),
        "first_hit": attacked.first_hit.tolist(),
        "image": [
            {"bytes": png, "path": f"{i}.png"}
            for i, png in zip(ids, encode_pngs(attacked.adversarial.pixels), strict=True)
        ],
    }
    arrays = {"clean_logits": attacked.clean_logits.numpy(), "logits": attacked.logits.numpy()}
    return Part(rows=rows, arrays=arrays | {f"trace.{k}": v.numpy() for k, v in attacked.trace.items()})


def from_part(part: Part, clean: Batch) -> Attacked:
    """What `to_part` wrote; `clean` are the originals in the same order."""
    pixels = decode_pngs([image["bytes"] for image in part.rows["image"]], like=clean.pixels)
    arrays = {name: torch.from_numpy(value) for name, value in part.arrays.items()}
    return Attacked(
        clean=clean,
        adversarial=clean.with_pixels(pixels),
        distance=distances(clean.pixels, pixels),
        clean_logits=arrays["clean_logits"],
        logits=arrays["logits"],
        trace={name.removeprefix("trace."): v for name, v in arrays.items() if name.startswith("trace.")},
        **{name: torch.tensor(part.rows[name]) for name in COLUMNS},
    )


def join_attacked(parts: Sequence[Attacked]) -> Attacked:
    """Parts of one attack as one."""
    return joined(join([p.clean for p in parts]), parts)


def joined(clean: Batch, parts: Iterable[Attacked]) -> Attacked:
    """Parts of one attack, which come in the order of the images, as one.

    A part is let go before the next is asked for, and many attacked images lie on disk
    (`heatprint.core.scratch.room`), so that the memory does not grow with them.
    """
    pixels = torch.from_numpy(room(tuple(clean.pixels.shape), np.uint8))
    columns: dict[str, list[Tensor]] = {name: [] for name in (*COLUMNS, *LOGITS)}
    far: dict[str, list[Tensor]] = {f.name: [] for f in fields(Distances)}
    traces: list[tuple[int, Mapping[str, Tensor]]] = []
    start = 0
    for part in parts:
        stop = start + len(part.clean)
        pixels[start:stop] = part.adversarial.pixels
        for name, values in columns.items():
            values.append(getattr(part, name))
        for name, values in far.items():
            values.append(getattr(part.distance, name))
        traces.append((stop - start, part.trace))
        start = stop
    return Attacked(
        clean=clean,
        adversarial=clean.with_pixels(pixels),
        distance=Distances(**{name: torch.cat(values) for name, values in far.items()}),
        trace=_joined_traces(traces),
        **{name: torch.cat(values) for name, values in columns.items()},
    )


def take_attacked(attacked: Attacked, rows: Tensor) -> Attacked:
    """These rows of an attack, in this order."""
    clean, adversarial = attacked.clean.take(rows), attacked.adversarial.take(rows)
    return Attacked(
        clean=clean,
        adversarial=adversarial,
        distance=distances(clean.pixels, adversarial.pixels),
        trace={name: values[rows] for name, values in attacked.trace.items()},
        **{name: getattr(attacked, name)[rows] for name in (*COLUMNS, *LOGITS)},
    )


def _joined_traces(parts: Sequence[tuple[int, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Traces of all parts, each with its number of images; one without any (nothing was attacked) counts as zeros."""
    like = {name: values for _, trace in parts for name, values in trace.items()}
    return {
        name: torch.cat([trace.get(name, values.new_zeros((count, *values.shape[1:]))) for count, trace in parts])
        for name, values in like.items()
    }
