"""The guard in process: what it says is what its parts say, each family of features measured once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from heatprint.core.errors import BrokenContract, InvalidInput, StoreError
from heatprint.core.lattice import to_pixels
from heatprint.core.values import Batch
from heatprint.data.sources import load_dataset
from heatprint.defences.worth import Worth
from heatprint.detectors import Examples, Identifier, fit
from heatprint.detectors.features.table import measure
from heatprint.detectors.heat_print import HeatPrint
from heatprint.detectors.locator import locate
from heatprint.detectors.look import Look
from heatprint.detectors.one_class import OneClassPrint
from heatprint.detectors.published.squeezing import SqueezingDetector
from heatprint.explainers import explain, make
from heatprint.live import Guard, traces
from heatprint.models import load, predict, save

SIZE = 32
FAMILIES = ("undo", "key", "margin", "image")


def attacked(classifier, pixels, name):
    """One step against the margin on every pixel, or all of one pixel."""
    look = Look(classifier, pixels)
    step = -look.slopes[:, 0].sign()
    if name == "one-pixel":
        place = look.slopes[:, 0].abs().sum(1).flatten(1).argmax(1)
        only = torch.zeros(len(pixels), SIZE * SIZE).scatter(1, place[:, None], 1.0).view(-1, 1, SIZE, SIZE)
        return to_pixels((look.images + step * only).clamp(0, 1))
    return to_pixels((look.images + step * 8 / 255).clamp(0, 1))


def known(classifier, batch):
    """Clean images and both attacks on them, with their history."""
    names = ("clean", "fgsm", "one-pixel")
    pixels = [batch.pixels, *(attacked(classifier, batch.pixels, name) for name in names[1:])]
    each = tuple(name for name in names for _ in batch.ids)
    return Examples(sources=batch.ids * 3, pixels=torch.cat(pixels), labels=batch.labels.repeat(3), kinds=each,
                    names=each, attacked=np.asarray(each) != "clean")  # fmt: skip


def undecided(classifier, pixels):
    """A fresh network whose border lies in the middle of the images, where one pixel can turn the answer."""
    logits = predict(classifier, pixels)
    with torch.no_grad():
        list(classifier.trainable.parameters())[-1][0] -= (logits[:, 0] - logits[:, 1]).median()
    return classifier


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = load_dataset("menagerie", size=SIZE, train=60, test=60)
    fresh = load("vgg-slim", classes=data.classes, size=SIZE, seed=0)
    save(undecided(fresh, data.train.pixels), folder / "models/clear")
    model = load(folder / "models/clear")
    learn, held = known(model, data.train), known(model, data.test)
    detector = fit(model, learn, HeatPrint(families=FAMILIES, learner="logistic"), name="heat-print")
    clean = detector.score(model, data.test.pixels)
    detector.calibrate(clean, fpr=0.05).save(folder / "forensics/fitted")
    settings = Identifier(families=(*FAMILIES, "compression"), learner="logistic")
    settings.fit(model, learn, held).save(folder / "forensics/fitted")
    table = measure(model, learn.pixels, settings.families)
    right = {"clear": ~np.asarray(learn.attacked), "median": np.asarray(learn.attacked)}
    Worth.fit(table, right, learn.kinds, learn.attacked, classifier=model.digest, families=settings.families).save(
        folder / "defence/fitted"
    )
    return folder


@pytest.fixture(scope="module")
def guard(run):
    return Guard.load(run / "models/clear", run)


@pytest.fixture(scope="module")
def images(guard):
    data = load_dataset("menagerie", size=SIZE, train=2, test=24, seed=5)
    return known(guard.classifier, data.test).pixels


@pytest.fixture(scope="module")
def checked(guard, images):
    return guard.check(images)


def test_answers_and_scores_are_those_of_classifier_and_detector(guard, images, checked):
    logits, scores = predict(guard.classifier, images), guard.detector.score(guard.classifier, images)
    assert [one.label for one in checked] == logits.argmax(1).tolist()
    assert [one.prediction for one in checked] == [guard.classifier.classes[k] for k in logits.argmax(1)]
    assert np.allclose([one.probability for one in checked], logits.softmax(1).amax(1))
    assert np.allclose([one.score for one in checked], scores)
    assert {one.threshold for one in checked} == {guard.detector.thresholds[0.05]}
    assert [one.verdict == "attacked" for one in checked] == guard.detector.flags(scores).tolist()
    assert {one.verdict for one in checked} == {"attacked", "passed"}


def test_flagged_images_are_named_as_the_identifier_names_them(guard, images, checked):
    rows = [row for row, one in enumerate(checked) if one.verdict == "attacked"]
    found = guard.identifier.identify(guard.classifier, images[rows])
    told = [checked[row].attack for row in rows]
    assert [one.name for one in told] == list(found.name)
    assert [one.family for one in told] == list(found.family)
    assert [one.unknown for one in told] == found.unknown().tolist()
    assert np.allclose([one.probability for one in told], found.probabilities.max(1))
    assert np.allclose([one.family_probability for one in told], found.family_probability)
    for row in rows[:5]:
        name, hope = guard.worth.best(guard.classifier, images[row : row + 1])
        assert (checked[row].remedy.name, pytest.approx(checked[row].remedy.probability)) == (name, hope)


def test_the_pixel_is_asked_of_what_looks_like_an_attack_on_few(guard, images, checked):
    found, seen = locate(guard.classifier, images), 0
    for row, one in enumerate(checked):
        sparse = one.attack is not None and one.attack.name == "one-pixel"
        assert (one.restored is not None) == (sparse and bool(found.changed[row]))
        if one.restored:
            seen += 1
            assert (one.restored.row, one.restored.column) == tuple(found.place[row].tolist())
            assert one.restored.prediction == guard.classifier.classes[int(found.label[row])]
    assert seen


def test_images_that_pass_are_told_nothing_about(checked):
    passed = [one for one in checked if one.verdict == "passed"]
    assert all(one.attack is one.restored is one.remedy is None for one in passed)


def test_each_family_is_measured_once_and_only_of_whom_it_concerns(guard, images, monkeypatch):
    asked = []

    def counted(classifier, pixels, families, **rest):
        asked.append((len(pixels), tuple(families)))
        return measure(classifier, pixels, families, **rest)

    monkeypatch.setattr(traces, "measure", counted)
    flagged = sum(one.verdict == "attacked" for one in guard.check(images))
    assert asked == [(len(images), FAMILIES), (flagged, ("compression",))]


def test_an_image_is_answered_alike_whatever_comes_with_it(guard, images, checked):
    for row in (0, 30, 60):
        alone = guard.check(images[row : row + 1])[0]
        assert alone.verdict == checked[row].verdict
        assert alone.score == pytest.approx(checked[row].score, abs=1e-4)


def test_arrays_are_as_good_as_tensors_and_none_is_none(guard, images, checked):
    assert guard.check(images[:3].numpy()) == guard.check(images[:3])
    assert guard.check(images[:0]) == ()
    assert {one.verdict for one in guard.predict(images[:3])} == {"unchecked"}


@pytest.mark.parametrize("wrong", [np.zeros((1, 3, SIZE, SIZE)), np.zeros((1, 3, 8, 8), np.uint8)])
def test_what_is_no_image_of_this_size_is_refused(guard, wrong):
    for ask in (guard.check, guard.predict, guard.heat):
        with pytest.raises(InvalidInput, match=r"uint8 \[N, 3, 32, 32\]"):
            ask(wrong)


def test_heat_is_the_usual_heat_map(guard, images):
    batch = Batch(ids=("a", "b"), pixels=images[:2], labels=torch.zeros(2, dtype=torch.long))
    usual = explain(guard.classifier, batch, make("lrp.sequential_preset_a_flat")).heat
    found = guard.heat(images[:2])
    assert found.dtype == np.float32
    assert np.allclose(found, usual)


@pytest.mark.parametrize("method", [SqueezingDetector(), OneClassPrint(families=("undo", "key"))])
def test_any_detector_guards_also_without_an_identifier(guard, images, method):
    data = load_dataset("menagerie", size=SIZE, train=30, test=2)
    detector = fit(guard.classifier, known(guard.classifier, data.train), method, name="other")
    detector = detector.calibrate(detector.score(guard.classifier, data.train.pixels), fpr=0.1)
    other = Guard(classifier=guard.classifier, detector=detector, fpr=0.1)
    found = other.check(images)
    assert np.allclose([one.score for one in found], detector.score(guard.classifier, images))
    assert all(one.attack is None for one in found)


def test_a_run_without_a_detector_says_how_to_build_one(guard, tmp_path):
    with pytest.raises(StoreError, match="heatprint detect --benchmark"):
        Guard.load(guard.classifier, tmp_path)


def test_a_detector_of_another_classifier_is_refused(run, guard, small):
    with pytest.raises(InvalidInput, match="detector and identifier and worth were fitted for another"):
        Guard.load(small, run)
    with pytest.raises(InvalidInput, match=r"calibrated for fpr 0\.05"):
        Guard.load(guard.classifier, run, fpr=0.2)


def test_a_network_that_breaks_is_not_passed_over(guard, images):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return (x.flatten(1)[:, :2]) * float("nan")

    broken = replace(guard.classifier, network=Broken())
    with pytest.raises(BrokenContract, match="not finite"):
        Guard(classifier=broken, detector=guard.detector).check(images[:2])
