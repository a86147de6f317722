"""Every registered detector in one protocol: the published ones beside ours, attacks nobody learned from included.

Nothing but this protocol gives a number: the detector learns from the fit part, thresholds come from images of the
calibration part that were not attacked, the test part judges, and the parts share no source image.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.protocols import Progress, silent
from heatprint.detectors import DETECTORS
from heatprint.detectors.door import Method, fit
from heatprint.detectors.examples import CLEAN, Examples
from heatprint.evaluation.detection import PRIORS, Rows, judged, precision
from heatprint.evaluation.forensics import Measured

IMAGES = 300  # of one kind, over all parts
CLEAN_TIMES = 10  # so many times as many clean images: densities and distances are estimated from them
KNOWN, HELD_OUT = "known", "held out"  # attacks that could be learned from, and those that could not

Told = dict[str, Any]
Keep = Callable[[str, Callable[[], Told]], Told]


def rivals(
    classifier: Classifier,
    measured: Measured,
    *,
    names: Sequence[str] | None = None,
    images: int = IMAGES,
    seed: int = 0,
    keep: Keep = lambda name, compute: compute(),
    progress: Progress = silent,
) -> dict[str, Told]:
    """What `rival` tells of each detector.

    Args:
        classifier: The victim.
        measured: Images of known history with their parts; its tables of features are not read.
        names: In `DETECTORS`; all of them without.
        images: See `thinned`.
        seed: Of learning and of the bootstrap.
        keep: Handed a name and how to compute its result; gives the result. By it a caller keeps each detector's
            result as soon as there is one, and does not compute it twice.
        progress: Told of every detector.

    Returns:
        Name to numbers; ``{"unsupported": why}`` for a detector that cannot guard this network.
    """
    told: dict[str, Told] = {}
    chosen = DETECTORS.names() if names is None else list(names)
    for done, name in enumerate(chosen):
        method = DETECTORS.make(name)

        def compute(name: str = name, method: Method = method) -> Told:
            try:
                return rival(classifier, measured, name, method=method, images=images, seed=seed)
            except (Unsupported, InvalidInput) as error:
                return {"unsupported": str(error)}

        told[name] = keep(name, compute)
        progress(done + 1, len(chosen), name)
    return told


def rival(
    classifier: Classifier,
    measured: Measured,
    name: str,
    *,
    method: Method | None = None,
    images: int = IMAGES,
    seed: int = 0,
    progress: Progress = silent,
) -> Told:
    """Fit one detector, take its thresholds, judge it.

    Args:
        classifier: The victim.
        measured: Images of known history with their parts; its tables of features are not read.
        name: Of the detector.
        method: Its settings; without, the defaults of `DETECTORS`.
        images: See `thinned`.
        seed: Of learning and of the bootstrap.
        progress: Of learning.

    Returns:
        What `summary` tells, and ``"unsupervised"``; ``"images"`` learned from, calibrated with and judged;
        ``"seconds_to_fit"`` and ``"ms_per_image"`` of a test image, of processors, summed over threads, so that a busy
        machine does not make a detector look slow.
    """
    method = DETECTORS.make(name) if method is None else method
    kept = thinned(measured.examples, images)
    attacked = np.asarray(measured.examples.attacked, dtype=bool)
    learn = np.intersect1d(measured.where("fit"), kept)
    usual = np.intersect1d(measured.where("calibrate"), kept)
    usual = usual[~attacked[usual]]
    test = np.intersect1d(measured.where("test", unseen=True), kept)
    clock = [time.process_time()]
    detector = fit(classifier, measured.examples.take(learn), method, name=name, seed=seed, progress=progress)
    clock.append(time.process_time())
    scores = detector.score(classifier, measured.examples.pixels[test])
    clock.append(time.process_time())
    calibration = detector.score(classifier, measured.examples.pixels[usual])
    return {
        **summary(
            scores,
            measured.rows.take(test),
            measured.unseen[test],
            calibration,
            kinds=measured.rows.kinds[usual],
            seed=seed,
        ),
        "unsupervised": method.unsupervised,
        "images": {"fit": len(learn), "calibrate": len(usual), "test": len(test)},
        "seconds_to_fit": round(clock[1] - clock[0], 3),
        "ms_per_image": round(1000 * (clock[2] - clock[1]) / len(test), 3),
    }


def summary(
    scores: np.ndarray,
    rows: Rows,
    held_out: np.ndarray,
    calibration: np.ndarray,
    *,
    kinds: Sequence[str] | None = None,
    seed: int = 0,
) -> Told:
    """Numbers of a detector from its scores, and whether it generalises.

    Args:
        scores: Of the test images, float [N], higher for attacked.
        rows: What they are.
        held_out: bool [N], of an attack that was never learned from.
        calibration: Scores of images that were not attacked, of other sources.
        kinds: What was done to each of those, for the guarded threshold of `detection.judged`.
        seed: Of the bootstrap over sources.

    Returns:
        What `detection.judged` tells of each attack, marked ``"held_out"`` or not, of the others and of the thresholds;
        ``"known"`` and ``"held out"``: the same for all attacks of that sort together, with the precision at each of
        `detection.PRIORS`, and the names of those ``"at_chance"``, whose interval holds 1/2, and ``"below_chance"``,
        whose interval lies below; ``"generalises"``: whether the interval of the attacks held out together lies above
        1/2. None for a sort that does not occur.
    """
    attacked = np.asarray(rows.attacked, dtype=bool)
    sort = np.where(held_out, HELD_OUT, KNOWN)
    told = judged(scores, rows, calibration, kinds=kinds, seed=seed)
    sorts = replace(rows, kinds=np.where(attacked, sort, rows.kinds))
    together = judged(scores, sorts, calibration, kinds=kinds, seed=seed)
    never = set(rows.kinds[attacked & held_out])
    for kind, found in told["attacks"].items():
        found["held_out"] = kind in never
    for one in (KNOWN, HELD_OUT):
        group = together["attacks"].get(one)
        own = {kind: found for kind, found in told["attacks"].items() if found["held_out"] == (one == HELD_OUT)}
        told[one] = group and {
            **group,
            "precision": _precisions(group, told["realised"]),
            "at_chance": [kind for kind, found in own.items() if found["interval"][0] <= 0.5 <= found["interval"][1]],
            "below_chance": [kind for kind, found in own.items() if found["interval"][1] < 0.5],
        }
    told["generalises"] = told[HELD_OUT] and told[HELD_OUT]["interval"][0] > 0.5
    return told


def thinned(examples: Examples, images: int) -> np.ndarray:
    """Rows of at most so many images of a kind, and of ten times as many clean ones, in ascending order.

    They are chosen by hash of their source, all parts alike: the mix of kinds is the same in each part, so that a
    threshold means the same, and a kind's images are copies of another's where they can be.

    Args:
        examples: The images.
        images: Most of one kind, over all parts.

    Raises:
        InvalidInput: Fewer than one.
    """
    if images < 1:
        raise InvalidInput(f"rivals: images = {images} of a kind must be 1 or more. Write {IMAGES}.")
    rank = np.asarray([hashlib.blake2b(source.encode(), digest_size=8).hexdigest() for source in examples.sources])
    kinds = np.asarray(examples.kinds)
    kept = []
    for kind in np.unique(kinds):
        own = np.flatnonzero(kinds == kind)
        most = images * CLEAN_TIMES if kind == CLEAN else images
        kept.append(own[np.argsort(rank[own], kind="stable")[:most]])
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, dtype=np.int64)


def _precisions(group: Mapping[str, Any], realised: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Prior to rate to precision; ``"low"`` with fewest found and most flagged that the intervals allow.

    The low end says what few negatives cannot: none of a hundred flagged is no precision of 1.
    """
    return {
        f"{prior:.1%} attacked": {
            rate: {
                "precision": precision(group[rate]["share"], flagged["share"], prior=prior),
                "low": precision(group[rate]["low"], flagged["high"], prior=prior),
            }
            for rate, flagged in realised.items()
        }
        for prior in PRIORS
    }
