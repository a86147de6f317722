"""The contract of the room `detectors`: every registered method keeps it, and no broken promise slips through."""

from __future__ import annotations

import numpy as np
import pytest

from heatprint import detectors
from heatprint.core.errors import BrokenContract
from heatprint.detectors import DETECTORS
from heatprint.detectors.features import FEATURES
from heatprint.detectors.features.family import Family
from heatprint.testing import check_detector

QUICK = {
    "auxiliary": {"steps": 3},
    "deep-ensemble": {"steps": 3, "members": 2},
    "heat-print": {"families": ("undo", "margin"), "learner": "logistic"},
    "heat-print-one-class": {"families": ("undo", "key")},
    "reconstruction": {"steps": 3},
}


@pytest.mark.parametrize("name", DETECTORS.names())
def test_every_detector_keeps_its_contract(name):
    check_detector(DETECTORS.make(name, **QUICK.get(name, {})))


@pytest.mark.parametrize("name", FEATURES.names())
def test_every_family_of_features_is_one(name):
    assert isinstance(FEATURES.make(name), Family)


class Forgetful(DETECTORS.load("squeezing")):
    """Scores an image by its batch."""

    def score(self, classifier, learned, pixels):
        return np.full(len(pixels), float(len(pixels)))


def test_a_score_of_the_batch_is_refused():
    with pytest.raises(BrokenContract, match="the same in any batch"):
        check_detector(Forgetful())


class Wordy(DETECTORS.load("squeezing")):
    """Keeps words."""

    def learn(self, classifier, examples, *, seed, progress):
        return {"words": np.array([object()])}


def test_objects_are_not_kept():
    with pytest.raises(BrokenContract, match="arrays of numbers"):
        check_detector(Wordy())


def test_the_room_lists_its_methods():
    assert "heat-print" in detectors.names()
