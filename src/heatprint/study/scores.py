"""What the detector of a run says of every point of its map, for the inspector to colour it by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from heatprint.core.classifier import Classifier
from heatprint.core.pictures import stored
from heatprint.core.protocols import Progress
from heatprint.core.store import Part, Store
from heatprint.detectors.door import Detector
from heatprint.runs.finished import has_atlas
from heatprint.runs.read import read_shown
from heatprint.study.progress import Watch

STEP = "forensics/scores"
AT_ONCE = 256  # images that are decoded together


def map_scores(run: Path, classifier: Classifier, detector: Detector, watch: Watch) -> None:
    """Score all points of the map of a run, clean and attacked; nothing where it has no map.

    The detector has learned from some of these images, so the scores show how it sees the map, and do not judge it.
    """
    if not has_atlas(run):
        return
    shown = read_shown(run, distances=False)
    with watch.step("detector scores of the map") as progress:

        def compute() -> Part:
            return Part(arrays={"scores": _scores(classifier, detector, shown.images, progress)})

        Store(run).memo(STEP, 0, (detector.classifier, detector.learned, shown.digest), compute)


def _scores(classifier: Classifier, detector: Detector, images: Sequence[bytes], progress: Progress) -> np.ndarray:
    parts = []
    for start in range(0, len(images), AT_ONCE):
        pixels = torch.from_numpy(np.stack([_pixels(one) for one in images[start : start + AT_ONCE]]))
        parts.append(detector.score(classifier, pixels))
        progress(start + len(pixels), len(images))
    return np.concatenate(parts) if parts else np.empty(0)


def _pixels(content: bytes) -> np.ndarray:
    """A stored PNG as uint8 [3, H, W]."""
    return stored(content).transpose(2, 0, 1)
