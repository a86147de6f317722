"""The images shown in the figures: chosen by rule, explained before and after, on the undefended and immune models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from heatprint.core.classifier import Classifier
from heatprint.core.protocols import Explainer, Progress
from heatprint.core.store import Part
from heatprint.core.values import Attacked, Batch, PlanLine
from heatprint.explainers import explain
from heatprint.models.predict import predict


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """One picture of a figure: an image as one model sees it."""

    example: int
    kind: str
    model: Classifier
    image: Batch
    step: int = -1
    pixel: tuple[int, int] = (-1, -1)


def draw_tiles(
    arms: Sequence[Classifier],
    test: Batch,
    old: Mapping[str, Attacked],
    explainer: Explainer,
    per_class: int,
    progress: Progress,
) -> Part:
    """Tiles with their heat maps, as the report reads them."""
    tiles = _tiles(arms, test, old, per_class)
    rows: dict[str, list[object]] = {}
    pixels, heat = [], []
    plan: tuple[PlanLine, ...] = ()
    for number, tile in enumerate(tiles):
        classes = tile.model.classes
        seen = explain(tile.model, tile.image, explainer)
        chance = predict(tile.model, tile.image.pixels).softmax(1)[0]
        row = {
            "example": tile.example,
            "id": tile.image.ids[0],
            "label": classes[int(tile.image.labels[0])],
            "kind": tile.kind,
            "model": tile.model.name,
            "predicted": classes[int(chance.argmax())],
            "probability": float(chance.max()),
            "step": tile.step,
            "pixel_row": tile.pixel[0],
            "pixel_col": tile.pixel[1],
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
        pixels.append(tile.image.pixels[0].numpy())
        heat.append(seen.heat[0].float().numpy())
        plan = seen.plan
        progress(number + 1, len(tiles))
    spelled = np.frombuffer(json.dumps([asdict(line) for line in plan]).encode(), dtype=np.uint8)
    return Part(rows=rows, arrays={"pixels": np.stack(pixels), "heat": np.stack(heat), "plan": spelled})


def _tiles(arms: Sequence[Classifier], test: Batch, old: Mapping[str, Attacked], per_class: int) -> list[Tile]:
    clear, immune = arms[0], {arm.name.removesuffix("_immune"): arm for arm in arms if arm.name.endswith("_immune")}
    where = {name: {i: row for row, i in enumerate(hit.clean.ids)} for name, hit in old.items()}
    tiles = []
    for example, row in enumerate(_chosen(test, old, [n for n in old if n in immune], per_class)):
        image = test.take([row])
        tiles.append(Tile(example=example, kind="clean", model=clear, image=image))
        for name, arm in immune.items():
            place = where[name].get(image.ids[0])
            hit = old[name]
            if place is None or not hit.success[place]:
                continue
            changed = hit.adversarial.take([place])
            step, pixel = int(hit.step[place]), _one_pixel(image, changed)
            for model in (clear, arm):
                tiles.append(Tile(example=example, kind=name, model=model, image=changed, step=step, pixel=pixel))
    return tiles


def _chosen(test: Batch, old: Mapping[str, Attacked], names: Sequence[str], per_class: int) -> list[int]:
    """Rows of test images: per class first those that fell to most attacks; then as many others, for figure 2."""
    falls = torch.zeros(len(test), dtype=torch.long)
    rows = {i: row for row, i in enumerate(test.ids)}
    for name in names:
        hit = old[name]
        fell = [rows[i] for i, won in zip(hit.clean.ids, hit.success.tolist(), strict=True) if won]
        falls[torch.tensor(fell, dtype=torch.long)] += 1
    chosen = []
    for label in sorted(set(test.labels.tolist())):
        own = (test.labels == label).nonzero().squeeze(1)
        order = own[falls[own].argsort(descending=True, stable=True)].tolist()
        rest = [row for row in own.tolist() if row not in order[:per_class]]
        chosen += order[:per_class] + rest[:per_class]
    return chosen


def _one_pixel(clean: Batch, changed: Batch) -> tuple[int, int]:
    """Row and column of the changed pixel when there is just one, else (-1, -1)."""
    places = (clean.pixels[0] != changed.pixels[0]).any(0).nonzero()
    return (int(places[0, 0]), int(places[0, 1])) if len(places) == 1 else (-1, -1)
