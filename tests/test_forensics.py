"""Forensics: the filters and features against slow versions, the door, the judge, the identifier, the locator."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from torch import nn
from typer.testing import CliRunner

from heatprint import detectors
from heatprint.attacks import attack, make
from heatprint.attacks.vulnerability import pixel_reach
from heatprint.cli import app
from heatprint.core.errors import BrokenContract, InvalidInput, StoreError, UnknownName
from heatprint.core.lattice import to_images
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.detectors import Examples, Identifier
from heatprint.detectors.door import at_most, guarded
from heatprint.detectors.features import FEATURES
from heatprint.detectors.features.table import columns, measure
from heatprint.detectors.features.undo import Planes, Undo
from heatprint.detectors.filters import bends, box3, halved, median3, spread3
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.detectors.learners import Applied, evenly, learned
from heatprint.detectors.locator import locate
from heatprint.detectors.look import Look
from heatprint.detectors.strangeness import Strangeness
from heatprint.evaluation.detection import GUARDED, Rows, auroc, equal_margin, judged, precision
from heatprint.evaluation.location import located
from heatprint.models import wrap
from heatprint.study.corpus import read_trials

SIZE = 24
CORNERS = torch.tensor([[a, b, c] for a in (0.0, 1.0) for b in (0.0, 1.0) for c in (0.0, 1.0)])


class Rough(nn.Module):
    """A linear classifier whose slope is rough, as that of a trained network."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        weight = torch.from_numpy(stream(seed, "rough").standard_normal((3, SIZE, SIZE))).float()
        self.weight = nn.Parameter(weight - weight.mean((1, 2), keepdim=True))  # brightness alone says nothing

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        margin = (images * self.weight).sum((1, 2, 3))
        return torch.stack([margin, -margin], 1)


@pytest.fixture(scope="module")
def rough():
    return wrap(Rough(), classes=("cats", "dogs"), size=SIZE)


def smooth(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth coloured 8-bit images, uint8 [count, 3, SIZE, SIZE]."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(60, 200, (count, 3, 4, 4))
    image = ndimage.zoom(low, (1, 1, SIZE / 4, SIZE / 4), order=1)
    return torch.from_numpy(image.round().clip(0, 255).astype(np.uint8))


# --- filters ----------------------------------------------------------------------------------------------


def test_filters_are_those_of_the_slow_library():
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 9, 11), dtype=np.uint8))
    one = (1, 1, 3, 3)
    np.testing.assert_array_equal(median3(pixels), ndimage.median_filter(pixels.numpy(), size=one, mode="nearest"))
    images = to_images(pixels)
    mean = ndimage.uniform_filter(images.numpy().astype(float), size=one, mode="nearest")
    square = ndimage.uniform_filter(images.numpy().astype(float) ** 2, size=one, mode="nearest")
    np.testing.assert_allclose(box3(images), mean, atol=1e-6)
    np.testing.assert_allclose(spread3(images), np.sqrt(square - mean**2), atol=2e-3)
    np.testing.assert_allclose(halved(images)[0, 0, 0, 0], images[0, 0, :2, :2].mean(), rtol=1e-6)
    assert halved(images).shape == (3, 3, 4, 5)
    ramp = torch.arange(9.0).view(1, 1, 1, 9).expand(1, 1, 5, 9)
    assert bends(ramp).abs().max() == 0
    np.testing.assert_allclose(bends(ramp.square())[:, 0], 2, atol=1e-5)
    np.testing.assert_allclose(bends(ramp.square())[:, 1], 0, atol=1e-5)


# --- features ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEATURES.names())
def test_features_are_an_image_s_own_finite_and_named(name, small):
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (5, 3, small.size, small.size), dtype=np.uint8))
    pixels[3] = 128  # nothing in it
    pixels[4] = 0
    before = small.fingerprint()
    together = FEATURES.make(name).measure(Look(small, pixels))
    alone = torch.cat([FEATURES.make(name).measure(Look(small, one)) for one in pixels.split(1)])
    assert together.shape == (5, len(FEATURES.make(name).names))
    assert bool(together.isfinite().all())
    assert len(set(columns((name,)))) == together.shape[1]
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    assert small.fingerprint() == before


def test_the_undo_ratio_is_what_it_says(rough):
    """Against the definition, with the image really changed."""
    images = to_images(smooth(2))
    pattern = torch.from_numpy(np.random.default_rng(1).choice([-1.0, 1.0], (2, 3, SIZE, SIZE))).float()

    def roughness(image):
        colours = np.stack([image[0] - image[1], image[1] - image[2]])[:, 1:-1, 1:-1]
        whole = np.stack([image[0] - image[1], image[1] - image[2]])
        along = whole[:, 1:-1, 2:] - 2 * colours + whole[:, 1:-1, :-2]
        down = whole[:, 2:, 1:-1] - 2 * colours + whole[:, :-2, 1:-1]
        return np.abs(np.stack([along, down])).mean()

    for row in range(2):
        x, w = images[row].double().numpy(), 2 / 255 * pattern[row].double().numpy()
        more, less, still = roughness(x + w), roughness(x - w), roughness(x)
        found = Planes(images).fit(Planes(pattern), 2, "colour")[row]
        assert float(found) == pytest.approx((more - less) / (more + less - 2 * still), rel=1e-3)


@pytest.mark.parametrize("levels", [1, 4])
def test_a_pattern_that_was_added_is_found_and_another_is_not(rough, levels):
    clean = smooth(20).clamp(8, 247)
    slope = Rough().weight.detach().sign()
    other = Rough(seed=1).weight.detach().sign()
    names = list(Undo().names)
    column = names.index(f"sign {levels} colour")

    def found(pixels):
        return Undo().measure(Look(rough, pixels))[:, column]

    sign = torch.where(rough(to_images(clean))[:, 0] > 0, 1, -1).view(-1, 1, 1, 1)  # whose margin it raises
    attacked = (clean.int() + levels * (sign * slope)).to(torch.uint8)
    noisy = (clean.int() + levels * other).to(torch.uint8)
    assert found(attacked).min() > 0.9
    assert found(noisy).abs().max() < 0.5
    assert found(clean).abs().max() < 0.5


def test_a_single_recoloured_pixel_is_the_peak_of_the_key(rough):
    clean = smooth(6)
    attacked = clean.clone()
    sign = torch.where(rough(to_images(clean))[:, 0] > 0, 1, -1)
    weight = Rough().weight.detach()
    for row in range(6):
        up = sign[row] * weight[:, 11, 7] > 0
        attacked[row, :, 11, 7] = up * 255
    names = FEATURES.make("key").names
    change = FEATURES.make("key").measure(Look(rough, attacked)) - FEATURES.make("key").measure(Look(rough, clean))
    assert change[:, names.index("peak")].min() > 0
    assert change[:, names.index("peak residual")].min() > 0.2


def test_of_several_rivals_the_one_attacked_is_found():
    """Three classes: the runner-up is not the class the image came from."""

    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            rng = stream(0, "three")
            self.weight = nn.Parameter(torch.from_numpy(rng.standard_normal((3, 3, SIZE, SIZE))).float())
            self.bias = nn.Parameter(torch.tensor([3e3, 0.0, 2.9e3]))

        def forward(self, images):
            return torch.einsum("nchw,kchw->nk", images, self.weight) + self.bias

    three = wrap(Three(), classes=("a", "b", "c"), size=SIZE)
    weight = Three().weight.detach()
    clean = smooth(8).clamp(4, 251)
    attacked = (clean.int() + (weight[0] - weight[1]).sign()).to(torch.uint8)  # from b to a; c is the runner-up
    look = Look(three, attacked, rivals=2)
    assert look.predicted.tolist() == [0] * 8
    column = list(Undo().names).index("sign 1 colour")
    one = Undo().measure(Look(three, attacked))[:, column]
    two = Undo().measure(look)[:, column]
    assert (two >= one).all()
    assert two.min() > 0.85 > one.max()


def test_tables_are_checked_and_streamed(small):
    pixels = torch.randint(0, 256, (11, 3, small.size, small.size), dtype=torch.uint8)
    told = []
    table = measure(small, pixels, ("margin", "undo"), progress=lambda done, of, note="": told.append((done, of)))
    assert table.shape == (11, len(columns(("margin", "undo"))))
    assert told[-1] == (11, 11)
    assert measure(small, pixels[:0], ("margin",)).shape == (0, 3)
    with pytest.raises(InvalidInput, match="each once"):
        measure(small, pixels, ("margin", "margin"))


def test_compression_tells_the_quality_and_the_grid(small):
    from heatprint.detectors.features.squeezing import saved_as_jpeg

    family = FEATURES.make("compression")
    noisy = np.random.default_rng(0).integers(-12, 13, (6, 3, 48, 48))
    pixels = torch.from_numpy(ndimage.zoom(smooth(6).numpy(), (1, 1, 2, 2), order=1)).int() + torch.from_numpy(noisy)
    pixels = pixels.clamp(0, 255).to(torch.uint8)

    def seen(images: torch.Tensor) -> dict[str, float]:
        return dict(zip(family.names, family.measure(Look(small, images)).mean(0).tolist(), strict=True))

    for quality in (90, 75, 60):
        saved = (saved_as_jpeg(pixels, quality) * 255).round().to(torch.uint8)
        found = seen(saved)
        on = {name: value for name, value in found.items() if name.startswith("on steps")}
        assert max(on, key=on.get) == f"on steps of {quality}"
        assert on[f"on steps of {quality}"] > 0.6
        assert found["on first grid"] > found["best grid"] - 0.05
        moved = seen(saved.roll((3, 5), (2, 3)))
        assert moved["on first grid"] < moved["best grid"] - 0.1
    assert max(value for name, value in seen(pixels).items() if name.startswith("on steps")) < 0.3


# --- the door ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A method for the tests: how far the mean brightness lies above that of what was not attacked."""

    unsupervised = False

    def learn(self, classifier, examples, *, seed, progress):
        usual = examples.pixels[torch.from_numpy(~np.asarray(examples.attacked))].float().mean()
        return {"usual": np.array([float(usual)])}

    def score(self, classifier, learned, pixels):
        return pixels.float().mean((1, 2, 3)).numpy() - learned["usual"][0]


def examples(count: int = 30, *, size: int = SIZE, seed: int = 0) -> Examples:
    pixels = smooth(2 * count, seed)[..., :size, :size]
    pixels[count:] = (pixels[count:].int() + 40).clamp(0, 255).to(torch.uint8)
    return Examples(
        sources=tuple(f"{seed}/{row % count}" for row in range(2 * count)), pixels=pixels,
        labels=torch.zeros(2 * count, dtype=torch.long), kinds=("clean",) * count + ("pgd",) * count,
        names=("clean",) * count + ("pgd",) * count, attacked=np.arange(2 * count) >= count,
    )  # fmt: skip


def test_a_detector_learns_scores_and_flags_no_more_than_asked(rough):
    found = detectors.fit(rough, examples(), Mean(), name="mean")
    held_out = examples(seed=1)
    scores = found.score(rough, held_out.pixels)
    assert auroc(scores[30:], scores[:30]) > 0.9
    calibrated = found.calibrate(scores[:30], fpr=0.1)
    assert calibrated.flags(scores[:30], fpr=0.1).sum() == 3
    assert found.thresholds == {}
    with pytest.raises(InvalidInput, match=r"calibrated for fpr 0\.1"):
        calibrated.flags(scores, fpr=0.05)
    with pytest.raises(InvalidInput, match="at least 100 images"):
        found.calibrate(scores[:30], fpr=0.01)


@given(st.lists(st.floats(-3, 3).map(lambda v: round(v, 1)), min_size=20, max_size=200), st.floats(0.01, 0.5))
def test_a_threshold_never_flags_more_of_its_own_images_than_asked(scores, rate):
    at = at_most(np.asarray(scores), rate)
    assert (np.asarray(scores) > at).mean() <= rate + 1e-12


def test_a_guarded_threshold_spares_every_kind(rough):
    rng = np.random.default_rng(0)
    scores = np.r_[rng.standard_normal(900), rng.standard_normal(100) + 2]
    kinds = ["clean"] * 900 + ["clean, misclassified"] * 100
    plain, spared = at_most(scores, 0.05), guarded(scores, 0.05, kinds)
    assert (scores[900:] > plain).mean() > 0.3
    assert (scores[900:] > spared).mean() <= 0.1
    assert (scores[900:] > guarded(scores, 0.05, kinds, most=0.2)).mean() <= 0.2
    assert guarded(scores, 0.05, [f"kind {row}" for row in range(1000)]) == plain  # too few of each to tell
    found = detectors.fit(rough, examples(), Mean(), name="mean").calibrate(scores, fpr=0.05, kinds=kinds)
    assert found.thresholds == {0.05: spared}


def test_what_a_detector_cannot_be_used_for_is_refused(rough, small):
    found = detectors.fit(rough, examples(), Mean(), name="mean")
    other = wrap(Rough(seed=3), classes=("cats", "dogs"), size=SIZE)
    with pytest.raises(InvalidInput, match="other weights"):
        found.score(other, examples().pixels)
    named = wrap(Rough(), classes=("dogs", "cats"), size=SIZE)
    with pytest.raises(InvalidInput, match="fitted for another classifier"):
        found.score(named, examples().pixels)
    with pytest.raises(InvalidInput, match=r"must be uint8 \[N, 3, 24, 24\]"):
        found.score(rough, examples(size=20).pixels)
    with pytest.raises(InvalidInput, match="8 bits"):
        found.score(rough, to_images(examples().pixels))
    with pytest.raises(InvalidInput, match="5 images that were attacked"):
        detectors.fit(rough, examples().take(range(35)), Mean())
    with pytest.raises(InvalidInput, match="0 images that were not attacked"):
        detectors.fit(rough, examples().take(range(30, 60)), Mean())

    class Broken(Mean):
        def score(self, classifier, learned, pixels):
            return np.full(len(pixels), np.nan)

    with pytest.raises(BrokenContract, match="not finite"):
        detectors.fit(rough, examples(), Broken(), name="broken").score(rough, examples().pixels)


def test_the_heat_print_is_kept_and_read_without_anything_that_runs(rough, tmp_path):
    learnt = detectors.fit(rough, examples(), detectors.make("heat-print", families=("margin", "undo")),
                           name="heat-print")  # fmt: skip
    scores = learnt.score(rough, examples(seed=1).pixels)
    learnt.calibrate(scores[:30], fpr=0.1).save(tmp_path)
    again = detectors.load(tmp_path)
    assert again.method == learnt.method
    assert again.thresholds == learnt.calibrate(scores[:30], fpr=0.1).thresholds
    np.testing.assert_array_equal(again.score(rough, examples(seed=1).pixels), scores)
    content = (tmp_path / "detector.safetensors").read_bytes()
    (tmp_path / "detector.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="Fit it again"):
        detectors.load(tmp_path)
    (tmp_path / "detector.safetensors").write_bytes(content)
    card = json.loads((tmp_path / "detector.json").read_bytes())
    (tmp_path / "detector.json").write_text(json.dumps(card | {"schema": 99}))
    with pytest.raises(StoreError, match="newer version"):
        detectors.load(tmp_path)


def test_foreign_code_in_a_learner_is_not_loaded():
    table, kinds = np.eye(60, dtype=np.float32), np.arange(60) % 2
    content = learned("logistic", table, kinds, np.ones(60), seed=0).tobytes()
    with zipfile.ZipFile(io.BytesIO(content)) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    schema = parts["schema.json"].replace(b'"LogisticRegression"', b'"Popen"')
    schema = schema.replace(b'"sklearn.linear_model._logistic"', b'"subprocess"')
    assert schema != parts["schema.json"]
    altered = io.BytesIO()
    with zipfile.ZipFile(altered, "w") as whole:
        for name, part in (parts | {"schema.json": schema}).items():
            whole.writestr(name, part)
    with pytest.raises(StoreError, match=r"foreign code \(subprocess.Popen\)"):
        Applied(np.frombuffer(altered.getvalue(), dtype=np.uint8))


@pytest.mark.parametrize("learner", ["trees", "boosting", "logistic"])
def test_every_learner_learns_and_equal_seeds_give_equal_bits(learner):
    rng = np.random.default_rng(0)
    table = rng.standard_normal((300, 5)).astype(np.float32)
    kinds = table[:, 0] + 0.2 * rng.standard_normal(300) > 0
    weights = evenly(["clean" if k else "pgd" for k in kinds], kinds)
    first, second = (learned(learner, table, kinds, weights, seed=3) for _ in range(2))
    found = Applied(first).probabilities(table)
    np.testing.assert_array_equal(found, Applied(second).probabilities(table))
    assert roc_auc_score(kinds, found[:, 1]) > 0.95
    np.testing.assert_allclose(found.sum(1), 1)


def test_every_kind_counts_the_same():
    kinds = ["clean"] * 400 + ["noise"] * 100 + ["pgd"] * 300 + ["fgsm"] * 50
    attacked = np.array([False] * 500 + [True] * 350)
    weights = evenly(kinds, attacked)
    of = {kind: weights[np.asarray(kinds) == kind].sum() for kind in set(kinds)}
    assert of["pgd"] == pytest.approx(of["fgsm"])
    assert of["clean"] == pytest.approx(3 * of["noise"])
    assert of["clean"] + of["noise"] == pytest.approx(of["pgd"] + of["fgsm"])
    mistaken = evenly(["clean"] * 300 + ["clean, misclassified in training"] * 40 + kinds[400:], attacked[60:])
    assert mistaken[:300].sum() == pytest.approx(mistaken[300:340].sum())


# --- the judge --------------------------------------------------------------------------------------------


def known(scores: np.ndarray, attacked: np.ndarray, margins: np.ndarray | None = None) -> Rows:
    margins = np.ones(len(scores)) if margins is None else margins
    return Rows(sources=np.arange(len(scores)).astype(str), kinds=np.where(attacked, "pgd", "clean"),
                attacked=attacked, margins=margins)  # fmt: skip


def test_the_judge_s_numbers_are_those_of_the_definitions():
    rng = np.random.default_rng(0)
    attacked = np.arange(600) % 3 == 0
    scores = np.round(rng.standard_normal(600) + attacked, 1)
    calibration = rng.standard_normal(1000)
    told = judged(scores, known(scores, attacked), calibration)
    assert told["pooled"] == pytest.approx(roc_auc_score(attacked, scores))
    low, high = told["attacks"]["pgd"]["interval"]
    assert low < told["attacks"]["pgd"]["auroc"] < high
    assert high - low < 0.12
    at = told["thresholds"]["at 5%"]
    assert (calibration > at).mean() <= 0.05
    assert told["attacks"]["pgd"]["at 5%"]["count"] == int((scores[attacked] > at).sum())
    assert told["realised"]["at 5%"]["total"] == 400
    assert GUARDED not in told["thresholds"]
    hits, alarms = (float((scores[rows] > at).mean()) for rows in (attacked, ~attacked))
    assert told["precision"]["1.0% attacked"]["at 5%"] == pytest.approx(precision(hits, alarms, prior=0.01))
    by_kind = judged(scores, known(scores, attacked), calibration, kinds=["a"] * 500 + ["b"] * 500)
    assert by_kind["thresholds"][GUARDED] == at  # both kinds are alike: 5 % of all is well below 10 % of each
    with pytest.raises(InvalidInput, match="all attacked or all not"):
        judged(scores[attacked], known(scores, attacked).take(np.flatnonzero(attacked)), calibration)


def test_a_score_that_is_the_margin_in_disguise_tells_nothing_at_equal_margin():
    rng = np.random.default_rng(0)
    margins = np.r_[rng.gamma(1.0, 0.5, 300), rng.gamma(4.0, 1.0, 900)]
    attacked = np.arange(1200) < 300
    disguised = equal_margin(-margins[:300], margins[:300], -margins[300:], margins[300:])
    assert auroc(-margins[:300], -margins[300:]) > 0.9
    assert disguised["auroc"] == pytest.approx(0.5)
    assert 100 < disguised["images"] <= 300
    real = rng.standard_normal(1200) + 2 * attacked
    assert equal_margin(real[:300], margins[:300], real[300:], margins[300:])["auroc"] > 0.85


def test_precision_at_a_prior_is_bayes_rule():
    assert precision(0.9, 0.05, prior=0.01) == pytest.approx(0.009 / (0.009 + 0.0495))
    assert precision(0.0, 0.0, prior=0.01) is None


# --- the identifier ---------------------------------------------------------------------------------------


def described(names: list[str], seed: int) -> tuple[np.ndarray, Examples]:
    """Tables whose first columns say the name, with examples that go with them."""
    rng = np.random.default_rng(seed)
    place = {name: k for k, name in enumerate(sorted(set(names)))}
    table = rng.standard_normal((len(names), 6)).astype(np.float32)
    table[np.arange(len(names)), [place[name] for name in names]] += 6
    return table, Examples(
        sources=tuple(f"{seed}/{row}" for row in range(len(names))),
        pixels=torch.zeros(len(names), 3, SIZE, SIZE, dtype=torch.uint8),
        labels=torch.zeros(len(names), dtype=torch.long), kinds=tuple(names), names=tuple(names),
        attacked=np.array([name not in ("clean", "noise") for name in names]),
    )  # fmt: skip


def test_the_identifier_names_doubts_and_is_kept(rough, tmp_path):
    names = ["clean", "noise", "pgd", "one-pixel"] * 60
    fitted = Identifier(families=("margin",)).fit_from(rough, *described(names, 0), *described(names, 1))
    table, truth = described(names, 2)
    found = fitted.identify_from(table)
    assert np.mean(np.asarray(found.name) == np.asarray(truth.names)) > 0.95
    assert found.family[2] == "iterative Linf"
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    assert found.unknown(alpha=0.05).mean() < 0.12
    strange = np.random.default_rng(5).standard_normal((200, 6)).astype(np.float32)  # says no name
    doubt = fitted.identify_from(strange)
    assert auroc(1 - doubt.credibility, 1 - found.credibility) > 0.8
    fitted.save(tmp_path)
    again = FittedIdentifier.load(tmp_path)
    np.testing.assert_array_equal(again.identify_from(table).probabilities, found.probabilities)
    np.testing.assert_array_equal(again.identify_from(table).credibility, found.credibility)
    with pytest.raises(InvalidInput, match="another classifier"):
        fitted.identify(wrap(Rough(seed=3), classes=("cats", "dogs"), size=SIZE), smooth(1))


def test_an_identifier_is_not_calibrated_on_what_it_learned_from(rough):
    _, some = described(["clean", "pgd"] * 30, 0)
    with pytest.raises(InvalidInput, match="60 source images"):
        Identifier(families=("margin",)).fit(rough, some, some)
    table, few = described(["clean"] * 40 + ["pgd"] * 3, 0)
    with pytest.raises(InvalidInput, match="20 images of each"):
        Identifier(families=("margin",)).fit_from(rough, table, few, table, few)
    with pytest.raises(UnknownName, match="fgms"):
        replace(some, names=("fgms",) * 60)


def test_strangeness_sees_the_undecided_and_the_far_away():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0, 0], [8, 0, 0]])
    place = np.arange(400) % 2
    table, held_out = (centres[place] + rng.standard_normal((400, 3)) for _ in range(2))
    sure = np.where(np.eye(2, dtype=bool)[place], 0.98, 0.02)
    strange = Strangeness.fit(table, place, held_out, sure)
    usual = strange.credibility(held_out, sure)
    assert (usual <= 0.05).mean() <= 0.06
    undecided = strange.of(held_out, np.full((400, 2), 0.5))
    away = strange.of(centres[place] + [0, 30, 0], sure)
    known = strange.of(held_out, sure)
    assert np.median(undecided) > np.quantile(known, 0.9)
    assert np.median(away) > np.quantile(known, 0.9)


# --- the locator ------------------------------------------------------------------------------------------


def test_the_recoloured_pixel_is_found_and_the_answer_restored(rough):
    many = smooth(400)
    near = rough(to_images(many))[:, 0].abs().argsort()[:12]  # a pixel can turn them
    clean = many[near]
    answer = rough(to_images(clean)).argmax(1)
    weight = Rough().weight.detach()
    attacked, places = clean.clone(), []
    for row in range(12):
        y, x = 3 + row, 20 - row
        places.append((y, x))
        up = (weight[:, y, x] > 0) ^ (answer[row] == 0)
        attacked[row, :, y, x] = torch.where(up, 255, 0).to(torch.uint8)
    found = locate(rough, attacked)
    # the attack raises what the classifier says now only where it flipped; elsewhere it weakened the answer
    flipped = rough(to_images(attacked)).argmax(1) != answer
    assert int(flipped.sum()) >= 6
    for row in flipped.nonzero().squeeze(1).tolist():
        assert tuple(found.place[row].tolist()) == places[row]
        assert bool(found.changed[row]) == (int(found.label[row]) == int(answer[row]))
    assert (found.label == answer)[flipped].float().mean() > 0.7  # a median is not the very pixel
    outside = torch.ones_like(attacked, dtype=torch.bool)
    for row in range(12):
        outside[row, :, found.place[row, 0], found.place[row, 1]] = False
    assert bool((found.restored == attacked)[outside].all())
    assert len(locate(rough, attacked[:0]).label) == 0


# --- attacks of the laboratory ----------------------------------------------------------------------------


def test_smooth_sign_leaves_colour_differences_alone(rough):
    images = smooth(8).clamp(16, 239)
    batch = Batch(ids=tuple("abcdefgh"), pixels=images, labels=rough(to_images(images)).argmax(1))
    hit = attack(rough, batch, make("smooth-sign", eps="8/255"))
    moved = hit.adversarial.pixels.int() - images.int()
    assert moved.abs().max() <= 8
    assert bool(moved.any())
    assert bool((moved == moved[:, :1]).all())  # grey
    with pytest.raises(InvalidInput, match="odd"):
        make("smooth-sign", width=2)


def test_pixel_reach_is_exact_for_a_linear_classifier(rough):
    images = smooth(3)
    answer = rough(to_images(images)).argmax(1)
    batch = Batch(ids=tuple("abc"), pixels=images, labels=answer)
    found = pixel_reach(rough, batch)
    for row in range(3):
        image = to_images(images[row : row + 1])
        logits = rough(image)[0]
        margin = float(logits[answer[row]] - logits[1 - answer[row]])
        falls = []
        for y, x in np.ndindex(SIZE, SIZE):
            tried = image.repeat(8, 1, 1, 1)
            tried[:, :, y, x] = CORNERS
            after = rough(tried)
            falls.append(margin - float((after[:, answer[row]] - after[:, 1 - answer[row]]).min().detach()))
        best = max(falls)
        assert float(found[row]) == pytest.approx(best / margin, rel=1e-3)
    wrong = Batch(ids=tuple("abc"), pixels=images, labels=1 - answer)
    assert bool(pixel_reach(rough, wrong).isinf().all())


def test_coloured_salt_takes_the_corners_of_the_colour_cube(rough):
    images = smooth(4)
    batch = Batch(ids=tuple("abcd"), pixels=images, labels=rough(to_images(images)).argmax(1))
    grey, coloured = (
        attack(rough, batch, make("salt-pepper", share=0.05, coloured=c)).adversarial.pixels for c in (False, True)
    )
    for changed, kinds in ((grey, 2), (coloured, 8)):
        pure = changed.permute(0, 2, 3, 1)[(changed != images).any(1)]
        pure = pure[((pure == 0) | (pure == 255)).all(1)]
        assert 1 < len(torch.unique(pure, dim=0)) <= kinds
    assert len(torch.unique(coloured.permute(0, 2, 3, 1)[(coloured != images).any(1)], dim=0)) > 2


def test_a_capped_pixel_stays_near_its_old_colour(rough):
    batch = Batch(ids=("a", "b", "c"), pixels=smooth(3), labels=torch.tensor([0, 1, 0]))
    for preset in ("paper", "scipy"):
        tried = make("one-pixel", population=12, generations=3, cap=20, preset=preset)
        hit = attack(rough, batch, tried)
        moved = (hit.adversarial.pixels.int() - batch.pixels.int()).abs()
        assert int(moved.amax()) <= 20
        assert (moved.amax(1) > 0).flatten(1).sum(1).tolist() == [0 if s else 1 for s in hit.skipped]
    with pytest.raises(InvalidInput, match="cap = 0"):
        make("one-pixel", cap=0)


def test_how_well_pixels_are_located_is_counted_against_the_clean_image(rough):
    clean = Batch(ids=("a", "b", "c"), pixels=smooth(3), labels=rough(to_images(smooth(3))).argmax(1))
    pixels = clean.pixels.clone()
    weight = Rough().weight.detach().abs().sum(0)
    row, column = divmod(int(weight.argmax()), SIZE)
    signs = torch.where(rough(to_images(pixels))[:, 0] > 0, 1.0, -1.0)
    for image, sign in zip(pixels, signs, strict=True):  # most to lose or to win: all channels at once
        image[:, row, column] = torch.where(Rough().weight.detach()[:, row, column] * sign > 0, 255, 0).to(torch.uint8)
    told = located(rough, clean, Batch(ids=("c", "a"), pixels=pixels[[2, 0]], labels=clean.labels[[2, 0]]))
    assert told["exactly"]["count"] == told["within one pixel"]["count"] == 2
    far = Batch(ids=("a",), pixels=clean.pixels[:1], labels=clean.labels[:1])
    assert located(rough, clean, far)["exactly"]["total"] == 1


# --- the laboratory ---------------------------------------------------------------------------------------


def test_the_trials_are_valid_and_a_mistake_is_told(tmp_path):
    trials = read_trials()
    assert {t.name for t in trials} >= {"fgsm", "pgd", "pgd, confident", "one-pixel", "three-pixel", "deepfool"}
    assert any(t.unseen for t in trials)
    file = tmp_path / "trials.toml"

    def written(text: str) -> Path:
        file.write_text(text)
        return file

    with pytest.raises(InvalidInput, match=r"no \[\[trials\]\]"):
        read_trials(written(""))
    with pytest.raises(UnknownName, match="metod"):
        read_trials(written('[[trials]]\nname = "a"\nalgorithm = "pgd"\nmetod = "pgd"\n'))
    with pytest.raises(InvalidInput, match="the algorithm 'pgdd'"):
        read_trials(written('[[trials]]\nname = "a"\nalgorithm = "pgdd"\nmethod = "pgd"\n'))
    one = '[[trials]]\nname = "a"\nalgorithm = "pgd"\nmethod = "pgd"\n'
    with pytest.raises(InvalidInput, match="more than once"):
        read_trials(written(one + one))
    with pytest.raises(InvalidInput, match="eps"):
        read_trials(written(one + "settings = { eps = 8 }\n"))
    with pytest.raises(InvalidInput, match="names a folder"):
        read_trials(written(one.replace('"a"', '"../a"')))


@pytest.mark.slow
def test_the_laboratory_is_built_from_the_command_line_and_names_an_attack(laboratory, tmp_path):
    from heatprint.core.lattice import encode_pngs
    from heatprint.data.sources import load_dataset
    from heatprint.models import load

    run = laboratory
    asked = ["detect", "--benchmark", "--run", str(run), "--data", "menagerie", "--limit", "160",
             "--trials", str(run / "trials.toml"), "--learner", "logistic", "--full"]  # fmt: skip
    first = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    assert "heat print and squeezing" in first.output
    assert "Attacked with knowledge of the detector" in first.output
    told = json.loads((run / "forensics.json").read_bytes())
    assert set(told["ablation"]["heat print"]["attacks"]) >= {"pgd", "ddn"}  # a single step may fool too few to judge
    assert set(told["left out"]["algorithms"]) <= {"pgd", "fgsm"}
    assert told["ablation"]["heat print"]["pooled"] > 0.7
    assert told["identification"]["sets"]["true difference"]["names"] > 0.8
    assert set(told["published"]["detectors"]) == set(detectors.names())
    assert all(one["before"]["fooled"]["total"] > 10 for one in told["resisted"]["attacks"].values())
    assert told["counts"]["clean, misclassified in training"]["test"] == 0
    kept = (run / "forensics.json").read_bytes()
    for part in (run / "forensics" / "features" / "undo" / "pgd" / "_done").iterdir():
        part.unlink()  # as after a crash
    again = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert again.exit_code == 0
    assert (run / "forensics.json").read_bytes() == kept

    model = load(run / "models" / "clear")
    test = load_dataset("menagerie", size=32, train=8, test=40).test
    hit = attack(model, test, make("bim", eps="8/255"))
    row = int(hit.success.nonzero()[0])
    image = tmp_path / "suspicious.png"
    image.write_bytes(encode_pngs(hit.adversarial.pixels[row : row + 1])[0])
    named = CliRunner().invoke(app, ["identify", str(image), "--run", str(run), "--out", str(tmp_path / "found"),
                                     "--fpr", "0.05"])  # fmt: skip
    assert named.exit_code == 0, named.output
    assert "prediction" in named.output
    assert "verdict" in named.output
    assert len(list((tmp_path / "found").glob("*-heat.png"))) == 1
    nothing = CliRunner().invoke(app, ["identify", str(image), "--run", str(tmp_path / "found")])
    assert isinstance(nothing.exception, StoreError)
    assert "heatprint study" in str(nothing.exception)
