"""The atlas of a study: strategies of the clean images, their cards, where attacks move them, and the border.

Each `measure_...` is one step that a run folder can keep as a part; what it says for ``metrics.json`` lies in the part
as JSON under ``told``. `summarised` puts these together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heatprint.atlas import (
    Card,
    border_distance,
    cards,
    counterfactual,
    flows,
    gains,
    logit_margin,
    relation,
    suspect_region,
)
from heatprint.atlas.cards import MEDOIDS
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.lattice import encode_pngs
from heatprint.core.protocols import Explainer, Progress, silent
from heatprint.core.store import Part
from heatprint.core.values import Attacked, Batch
from heatprint.explainers import explain
from heatprint.models.predict import predict
from heatprint.signatures.maps import heat_maps
from heatprint.signatures.neighbours import distinct
from heatprint.signatures.spray.spray import normalised
from heatprint.signatures.strategies import Clusterer, Strategies, one_strategy
from heatprint.study import atlas_told as told

FEWEST = 12  # maps that differ in more than scale; fewer are shown as one strategy, without a graph
TESTED = 200  # images a counterfactual is tried on: of the strategy, of the rest of its class, of other classes
UNITS = {"fgsm": "levels of 1/255", "one-pixel": "generations"}  # of an attack's step, by method


@dataclass(frozen=True, kw_only=True)
class Exploring:
    """A clustering that has something to show: a few strategies where one is proposed, one where it refuses the maps.

    Hours into a study, maps that a method refuses, because they are too few or too many for it, are shown as one
    strategy; `Strategies.note` has what it said.

    Attributes:
        method: Clusters.
        wanted: How many strategies to tell apart; 0 for as many as the maps propose.
        shown: How many where they propose one; such a partition is exploratory, and `Strategies.proposed` says so.
    """

    method: Clusterer
    wanted: int = 0
    shown: int = 3

    def strategies(self, maps: np.ndarray, images: np.ndarray | None = None, *, count: int | None = None) -> Strategies:
        """See `heatprint.signatures.strategies.Clusterer`.

        Raises:
            InvalidInput: Maps that are not finite, or none.
        """
        different = len(distinct(normalised(maps)).vectors)
        if different < FEWEST:
            return one_strategy(len(maps), note=f"maps that differ: {different}, fewer than {FEWEST}")
        asked = count or self.wanted
        try:
            # the number proposed comes with every answer, so where it is 1, as mostly, one answer is enough
            found = self.method.strategies(maps, images, count=asked or self.shown)
            return found if asked or found.proposed == 1 else self.method.strategies(maps, images)
        except InvalidInput as refused:
            return one_strategy(len(maps), note=str(refused))


def measure_images(
    classifier: Classifier,
    batch: Batch,
    explainer: Explainer,
    method: Clusterer,
    *,
    side: int = 28,
    maps: np.ndarray | None = None,
    progress: Progress = silent,
) -> Part:
    """Heat maps of the predicted classes, and the strategies among those that explain one class.

    Args:
        classifier: The classifier.
        batch: Clean images.
        explainer: Makes the heat maps.
        method: Groups them; see `Exploring`.
        side: Of the pooled maps.
        maps: The pooled maps, where they are there already.
        progress: Told of the explanations.

    Returns:
        One row per image: id, label (empty where it is not known), predicted, strategy (``"dogs 2"``) and the image;
        its map under ``maps``, its logits under ``logits``, and under ``spectral`` its place among the first
        eigenvectors of its class (float32 [N, 16], 0 beyond those there are).
    """
    if maps is None:
        maps = heat_maps(classifier, batch, explainer, side=side, progress=progress)
    logits = predict(classifier, batch.pixels)
    predicted = logits.argmax(1).numpy()
    names = np.empty(len(batch), dtype=object)
    spectral = np.zeros((len(batch), told.EIGENVALUES), np.float32)
    kinds = []
    for number in np.unique(predicted):
        rows, name = np.flatnonzero(predicted == number), classifier.classes[number]
        found = method.strategies(maps[rows], batch.pixels.numpy()[rows])
        names[rows] = [told.strategy_name(name, label) for label in found.labels]
        kept = found.embedding[:, : told.EIGENVALUES]
        spectral[rows, : kept.shape[1]] = kept
        kinds.append({"class": name, "images": len(rows), **told.graph(found)})
    columns = {
        "id": list(batch.ids),
        "label": [classifier.classes[k] if k >= 0 else "" for k in batch.labels],
        "predicted": [classifier.classes[k] for k in predicted],
        "strategy": names.tolist(),
        "image": [
            {"bytes": png, "path": f"{i}.png"} for i, png in zip(batch.ids, encode_pngs(batch.pixels), strict=True)
        ],
    }
    arrays = {"maps": maps, "logits": logits.float().numpy(), "spectral": spectral}
    return Part(rows=columns, arrays={**arrays, "told": told.spelled(told.by_rank(kinds))})


def measure_cards(
    classifier: Classifier,
    batch: Batch,
    images: Part,
    explainer: Explainer,
    attacked: Mapping[str, Attacked],
    *,
    units: Mapping[str, str],
    seed: int = 0,
    progress: Progress = silent,
) -> Part:
    """The cards of all strategies with their counterfactual tests, the most suspicious first.

    Args:
        classifier: The classifier.
        batch: The images of `measure_images`, in the same order.
        images: What it returned.
        explainer: Makes the heat maps of the medoids in full size.
        attacked: Attacks on these images, by name.
        units: What an attack's step counts, by name.
        seed: Of the counterfactuals' controls.
        progress: Told after each card.
    """
    maps = images.arrays["maps"]
    predicted = np.array([classifier.classes.index(name) for name in images.rows["predicted"]])
    named: dict[str, Card] = {}
    rows_of: dict[str, np.ndarray] = {}
    for number in np.unique(predicted):
        rows, kind = np.flatnonzero(predicted == number), classifier.classes[number]
        found = _strategies([images.rows["strategy"][row] for row in rows])
        for card in cards(found, maps[rows], batch.take(rows.tolist()), predicted[rows], attacked=attacked):
            name = told.strategy_name(kind, card.strategy)
            named[name], rows_of[name] = card, rows
    order = sorted(named, key=lambda name: (-round(named[name].suspicion, 6), name))
    listed, regions = [], []
    for done, name in enumerate(order, start=1):
        test, region = _tested(classifier, batch, maps, predicted, rows_of[name], named[name], seed)
        listed.append(told.card(name, named[name], classifier.classes, units) | {"counterfactual": test})
        regions.append(region)
        progress(done, len(order), name)
    medoids = np.stack([rows_of[name][_three(named[name].medoids)] for name in order])  # [S, M]
    arrays = {
        **_pictures(classifier, batch, explainer, [named[name] for name in order], medoids),
        "region": np.stack(regions),
        "told": told.spelled({"cards": listed, "falls": {attack: told.falls(named, attack) for attack in attacked}}),
    }
    ids = [[batch.ids[row] for row in rows] for rows in medoids]
    return Part(rows={"name": order, "medoid_ids": ids}, arrays=arrays)


def _strategies(names: list[str]) -> Strategies:
    """What the cards need of the strategies whose names the images of a class carry."""
    labels = np.array([int(name.rpartition(" ")[2]) - 1 for name in names])
    return replace(one_strategy(len(names)), labels=labels, count=int(labels.max()) + 1)


def _three(medoids: np.ndarray) -> np.ndarray:
    """As many medoids as are shown; a strategy with fewer images repeats its last one."""
    return np.asarray(medoids[np.minimum(np.arange(MEDOIDS), len(medoids) - 1)])


def _tested(
    classifier: Classifier,
    batch: Batch,
    maps: np.ndarray,
    predicted: np.ndarray,
    rows: np.ndarray,
    card: Card,
    seed: int,
) -> tuple[dict[str, Any] | None, np.ndarray]:
    """The counterfactual of a card of the class whose images are `rows`, and the region it was about."""
    inside = rows[card.rows]
    rest, others = np.setdiff1d(rows, inside), np.setdiff1d(np.arange(len(batch)), rows)
    size = batch.pixels.shape[2], batch.pixels.shape[3]
    region = suspect_region(maps[inside], maps[rest], size=size)
    if not region.any() or region.all():
        return None, np.zeros(size, dtype=bool)
    few = [_some(batch, group) for group in (inside, rest, others)]
    asked = np.concatenate(few)
    few_images = batch.take(asked.tolist())
    found = counterfactual(
        classifier, few_images, np.arange(len(few[0])), region, maps=maps[asked], predicted=predicted[asked], seed=seed
    )
    return {"region": round(found.area, 6), **found.shares()}, region


def _some(batch: Batch, rows: np.ndarray) -> np.ndarray:
    """At most `TESTED` of these rows by hash of id alone: shares by true class would favour the misclassified."""
    ranked = sorted(rows.tolist(), key=lambda row: hashlib.blake2b(batch.ids[row].encode()).digest())
    return np.array(sorted(ranked[:TESTED]), dtype=np.int64)


def _pictures(
    classifier: Classifier, batch: Batch, explainer: Explainer, found: list[Card], medoids: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean maps, mean images, and the medoids, rows int64 [S, M], with their heat maps in full size."""
    different, place = np.unique(medoids, return_inverse=True)
    heat = explain(classifier, batch.take(different.tolist()), explainer).heat.float().numpy()
    return {
        "mean_map": np.stack([card.mean_map for card in found]),
        "mean_image": np.stack([card.mean_image for card in found]),
        "medoid_pixels": batch.pixels.numpy()[medoids],
        "medoid_heat": heat[place.reshape(medoids.shape)],
    }


def measure_flows(
    classifier: Classifier,
    images: Part,
    attacked: Attacked,
    explainer: Explainer,
    method: Clusterer,
    *,
    progress: Progress = silent,
) -> Part:
    """Where one attack moves the heat maps of the images it was tried on; nothing where it was tried on none.

    Args:
        classifier: The classifier.
        images: What `measure_images` returned.
        attacked: The attack; images that are not in the atlas are left out.
        explainer: Makes the heat maps.
        method: Groups clean, attacked and difference maps; see `Exploring`.
        progress: Told of the explanations.

    Returns:
        One row per image: id and the strategies of its clean, attacked and difference map (empty without one). Under
        ``moved`` float16 [N, side, side] the pooled heat maps of the attacked copies.
    """
    place = {name: row for row, name in enumerate(images.rows["id"])}
    tried = [row for row, name in enumerate(attacked.clean.ids) if name in place and not attacked.skipped[row]]
    if not tried:
        return Part(arrays={"told": told.spelled(None)})
    before, after = attacked.clean.take(tried), attacked.adversarial.take(tried)
    rows = [place[name] for name in before.ids]
    clean = images.arrays["maps"][rows]
    changed = np.flatnonzero((before.pixels != after.pixels).flatten(1).any(1).numpy())
    moved = clean.copy()
    if len(changed):
        side = clean.shape[1]
        moved[changed] = heat_maps(classifier, after.take(changed.tolist()), explainer, side=side, progress=progress)
    found = flows(clean, moved, method, ids=before.ids, images=(before.pixels.numpy(), after.pixels.numpy()))
    classes = [images.rows["predicted"][row] for row in rows]
    columns = {
        "id": list(before.ids),
        **{name: [told.letter(k) for k in getattr(found, name)] for name in ("clean", "attacked", "difference")},
    }
    return Part(
        rows=columns, arrays={"told": told.spelled(told.flow(found, classes)), "moved": moved.astype(np.float16)}
    )


def measure_border(
    places: Part, attacked: Mapping[str, Attacked], *, seed: int = 0, progress: Progress = silent
) -> Part:
    """Per attack, how the distance to the border of the map goes with the smallest gain, within predicted classes.

    Args:
        places: The map of signatures: rows kind, id and predicted, ``signatures``, and ``clean_plane``, [C, 2], a map
            fitted to the clean images alone, in the order of their rows.
        attacked: Attacks by name; those that tell no steps are left out.
        seed: Of bootstrap and permutations.
        progress: Told after each attack.
    """
    clean = [row for row, kind in enumerate(places.rows["kind"]) if kind == "clean"]
    place = {places.rows["id"][row]: number for number, row in enumerate(clean)}
    predicted = np.array([places.rows["predicted"][row] for row in clean])
    far = {
        "plane": border_distance(places.arrays["clean_plane"], predicted),
        "signature": border_distance(places.arrays["signatures"][clean], predicted),
    }
    found = {}
    for done, (name, one) in enumerate(attacked.items(), start=1):
        gain = gains(one)
        rows = [row for row, i in enumerate(one.clean.ids) if i in place and not np.isnan(gain[row])]
        if rows:
            own = [place[one.clean.ids[row]] for row in rows]
            distances = {of: values[own] for of, values in far.items()}
            distances["logit margin"] = logit_margin(one.clean_logits.numpy()[rows])
            related = {
                of: relation(values, gain[rows], within=predicted[own], seed=seed) for of, values in distances.items()
            }
            found[name] = {
                "images": len(rows),
                "censored": int(np.isinf(gain[rows]).sum()),
                "relations": [
                    {"of": of} | {key: getattr(r, key) for key in ("rho", "low", "high", "p", "pooled", "images")}
                    for of, r in related.items()
                ],
            }
        progress(done, len(attacked), name)
    return Part(arrays={"told": told.spelled(found)})


def summarised(
    images: Part, found: Part, moved: Mapping[str, Part], border: Part | None, *, method: str, explainer: str
) -> dict[str, Any]:
    """What ``metrics.json`` says of the atlas.

    Args:
        images: Of `measure_images`.
        found: Of `measure_cards`.
        moved: Of `measure_flows`, by attack.
        border: Of `measure_border`; None where there is no map of signatures.
        method: Name of the clustering.
        explainer: Name of the explainer.
    """
    listed = told.read(found)
    streams = {name: told.read(part) for name, part in moved.items()}
    return {
        "images": len(images.rows["id"]),
        "side": images.arrays["maps"].shape[1],
        "method": method,
        "explainer": explainer,
        "classes": told.read(images),
        "cards": listed["cards"],
        "flows": {
            name: flow | {"falls": listed["falls"].get(name, [])} for name, flow in streams.items() if flow is not None
        },
        "border": told.read(border) if border else {},
    }
