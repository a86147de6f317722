"""What users of other attack libraries have run into, one test each: that ours does not share it.

In the names of the threads, T is Harry24k/adversarial-attacks-pytorch, A Trusted-AI/adversarial-robustness-toolbox, F
bethgelab/foolbox; the other repositories are spelled out. Nothing here needs one of these libraries.
"""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch
from torch import nn

from heatprint.attacks import ATTACKS, attack, make
from heatprint.attacks.ledger import Budget
from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import Criterion
from heatprint.core.lattice import decode_png, encode_png
from heatprint.core.values import Batch
from heatprint.data.splits import sample
from heatprint.evaluation.attacks import attack_summary
from heatprint.models import predict, wrap
from heatprint.testing import Residual, labelled_batch, linear_classifier, small_classifier

ROOT = Path(__file__).parents[1]
PEERS = ("art", "foolbox", "torchattacks")
OURS = [name for name in ATTACKS.names() if name not in PEERS]
QUICK = {
    "apgd": {"steps": 10},
    "boundary": {"queries": 60},
    "carlini-wagner": {"steps": 10, "searches": 2},
    "ead": {"steps": 10, "searches": 2},
    "ensemble": {"effort": "quick"},
    "fab": {"steps": 10},
    "fmn": {"steps": 10},
    "hopskipjump": {"iterations": 2, "probes": 10},
    "jsma": {"gamma": 0.02},
    "one-pixel": {"population": 10, "generations": 2},
    "sigma-zero": {"steps": 10},
    "patch": {"epochs": 5},
    "simba": {"queries": 40},
    "square": {"queries": 40},
}


def quick(name, **settings):
    return make(name, **QUICK.get(name, {}) | settings)


def counted(victim, monkeypatch):
    """The sizes of the batches that reach the network, as a list that grows."""
    calls, plain = [], Classifier.__call__
    monkeypatch.setattr(Classifier, "__call__", lambda self, images: calls.append(len(images)) or plain(self, images))
    return calls


# 1.1 defects found by running the peers


def test_art_minimal_fgm_the_ramp_tries_eps_itself():
    """0.1 + 0.1 + 0.1 > 0.3 in floating point; steps here are counted in whole levels."""
    victim = linear_classifier()
    batch = labelled_batch(victim, 12)
    first = attack(victim, batch, make("fgsm", eps="60/255")).step
    assert (first > 1).sum() > 5
    for row in (first > 1).nonzero().squeeze(1).tolist():
        one, gain = batch.take([row]), int(first[row])
        assert attack(victim, one, make("fgsm", eps=f"{gain}/255")).step.tolist() == [gain]
        assert attack(victim, one, make("fgsm", eps=f"{gain - 1}/255")).step.tolist() == [-1]


def test_art_fgm_the_success_rate_reported_is_the_true_one():
    """Its log says 0.00 % whatever happened."""
    victim = small_classifier()
    hit = attack(victim, labelled_batch(victim, 12), make("fgsm", eps="20/255"))
    wrong = (predict(victim, hit.adversarial.pixels).argmax(1) != hit.clean.labels).float().mean()
    assert wrong > 0
    assert attack_summary(hit, victim.classes)["success"]["share"] == pytest.approx(float(wrong))


def test_art_pixel_attack_every_image_has_its_own_result():
    """There a list made anew in the loop keeps the last image's threshold alone."""
    victim = linear_classifier()
    batch = labelled_batch(victim, 12)
    hit = attack(victim, batch, make("fgsm", eps="60/255"))
    assert hit.step.shape == hit.distance.linf.shape == (12,)
    assert len(set(hit.step.tolist())) > 3
    assert torch.equal(hit.step, hit.distance.linf)


@pytest.mark.parametrize("name", OURS)
def test_one_pixel_keras_a_targeted_success_is_the_target_and_nothing_else(name):
    """It counts any misclassification as one."""
    if quick(name).taxonomy.specificity == "untargeted":
        pytest.skip("cannot aim")
    victim = linear_classifier(classes=4)
    batch = labelled_batch(victim, 4)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]  # the least likely class
    hit = attack(victim, batch, quick(name), targets=targets)
    assert torch.equal(hit.success, predict(victim, hit.adversarial.pixels).argmax(1) == targets)


def test_one_pixel_keras_images_are_drawn_without_replacement():
    batch = labelled_batch(small_classifier(), 40)
    rows = sample(batch, 30).tolist()
    assert len(set(rows)) == len(rows) == 30


def test_one_pixel_the_colours_0_and_255_can_be_reached():
    """Bounds (0, 255) that are floored leave 255 out."""
    victim = linear_classifier(scale=0.2)
    batch = labelled_batch(victim, 12)
    hit = attack(victim, batch, make("one-pixel", population=50, generations=8))
    moved = hit.adversarial.pixels[hit.adversarial.pixels != batch.pixels]
    assert (moved == 255).any()
    assert (moved == 0).any()


def test_one_pixel_every_candidate_is_tested_for_success_those_of_the_first_population_too():
    """All peers test the best candidate of a generation alone, and none of the first."""
    victim = linear_classifier(scale=0.5)
    hit = attack(victim, labelled_batch(victim, 12), make("one-pixel", population=50, generations=3))
    assert (hit.step == 0).any()
    assert (hit.forwards[hit.step == 0] == 50).all()


# 3 what users ask for


def test_thread_01_one_pixel_comes_with_the_budget_of_the_paper():
    """T#180, A#817, one-pixel-attack-keras#23: "does not work", with 0.3 % of it."""
    strategy = make("one-pixel").strategy
    assert (strategy.population, strategy.generations) == (400, 100)


def test_thread_02_and_18_images_share_the_calls_of_the_network(monkeypatch):
    """one-pixel-attack-keras#11, A#947, A#369, T#74, T#76, A#970, A#127: one image at a time."""
    victim = small_classifier()
    batch = labelled_batch(victim, 12)
    calls = counted(victim, monkeypatch)
    attack(victim, batch, make("pgd", steps=5))
    allowed = 2 * (5 + 1) + 2
    assert len(calls) <= allowed, "five gradients and the last look, each with its 8-bit check, and the door's two"


@pytest.mark.parametrize("pixels", [0, 255])
def test_thread_03_pixel_attacks_stay_in_range_and_in_their_pixels(pixels):
    """A#960, A#801, A#1571, F#144, F#341."""
    victim = small_classifier()
    flat = torch.full((4, 3, 16, 16), pixels, dtype=torch.uint8)
    batch = Batch(ids=tuple("abcd"), pixels=flat, labels=predict(victim, flat).argmax(1))
    hit = attack(victim, batch, quick("one-pixel"))
    assert (hit.distance.l0 == 1).all()


def test_thread_04_and_05_single_pixel_and_targeted_fgsm_exist():
    """F#568, F#286, T#20, T#47; F#706, F#607, F#538, F#614, F#170."""
    victim = linear_classifier(classes=4)
    batch = labelled_batch(victim, 6)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]
    hit = attack(victim, batch, make("fgsm", eps="120/255"), targets=targets)
    assert torch.equal(hit.logits.argmax(1) == targets, hit.success)
    assert hit.success.any()
    assert make("one-pixel").taxonomy.specificity == "targeted or untargeted"


def test_thread_06_a_targeted_minimal_attack_reaches_the_target():
    """T#121, T#140, T#92, secml-torch#118, armory#688: modes that were silently wrong."""
    victim = linear_classifier(classes=4)
    batch = labelled_batch(victim, 6)
    targets = predict(victim, batch.pixels).argsort(1)[:, 0]
    hit = attack(victim, batch, make("ddn"), targets=targets)
    assert hit.success.all()


def test_thread_07_normalisation_belongs_to_the_classifier_and_leaves_the_radius_alone():
    """T#191, T#78, T#68, T#63, F#681, F#703, A#846, A#569."""
    torch.manual_seed(0)
    victim = wrap(Residual(3), classes="abc", size=16, mean=(0.4, 0.5, 0.6), std=(0.1, 0.1, 0.1))
    batch = labelled_batch(victim, 6)
    hit = attack(victim, batch, make("fgsm", eps="4/255", ramp=False))
    assert (hit.distance.linf == 4).all(), "4 levels of the image, not of the normalised one"
    with pytest.raises(InvalidInput, match=r"normalisation|mean and std"):
        Batch.from_images(ids=batch.ids, images=(batch.images - 0.5) / 0.1, labels=batch.labels)


def test_thread_08_a_float_error_at_the_edge_of_the_range_is_no_error():
    """T#136: -2.98e-08 was refused."""
    images = torch.full((1, 3, 16, 16), -2.98e-08)
    images[0, 0, 0, 0] = 1 + 1e-7
    batch = Batch.from_images(ids=["a"], images=images, labels=torch.tensor([0]))
    assert batch.pixels[0].sum() == 255


@pytest.mark.parametrize("name", [n for n in OURS if getattr(make(n), "eps", None) is not None])
def test_thread_09_eps_0_changes_no_bit(name):
    """T#172."""
    victim = small_classifier()
    batch = labelled_batch(victim, 4)
    assert torch.equal(attack(victim, batch, quick(name, eps=0.0)).adversarial.pixels, batch.pixels)


@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd", "noise"])
def test_thread_10_eps_in_levels_is_explained(name):
    """A#894, F#353: a radius of 8 for pixels in [0, 1]."""
    with pytest.raises(InvalidInput, match=re.escape("8/255")):
        make(name, eps=8)
    assert make(name, eps="8/255").eps == 8 / 255


@pytest.mark.parametrize("name", OURS)
def test_thread_11_queries_are_counted_per_image(name, monkeypatch):
    """A#1238, F#638, blackbox-bandits#8, simple-blackbox-attack#7."""
    victim = small_classifier()
    hit = attack(victim, labelled_batch(victim, 3), quick(name))
    assert hit.forwards.shape == hit.backwards.shape == (3,)
    if quick(name).taxonomy.knowledge != "none":
        assert (hit.forwards > 0).all()
    capped = attack(victim, labelled_batch(victim, 3), quick(name), budget=Budget(forwards=3))
    assert int(capped.forwards.max()) <= 3


def test_thread_12_nothing_is_asked_about_an_image_that_has_fallen():
    """F#203, F#213, unrestricted-adversarial-examples#22."""
    victim = small_classifier()
    method = make("pgd", eps="8/255", step="1/255", steps=20, random_start=False)
    hit = attack(victim, labelled_batch(victim, 24), method)
    assert len(set(hit.forwards.tolist())) > 2
    fell = hit.step >= 0
    assert (hit.forwards[fell] <= hit.step[fell] + 2).all()


@pytest.mark.parametrize("name", OURS)
def test_thread_13_images_that_were_wrong_before_are_counted_apart(name):
    """F#713, armory#990."""
    victim = small_classifier()
    hit = attack(victim, labelled_batch(victim, 4, wrong=2), quick(name))
    told = attack_summary(hit, victim.classes)
    assert hit.skipped.tolist() == [True, True, False, False]
    assert (told["images"], told["skipped"]) == (4, 2)
    assert hit.attempted == 2
    assert torch.equal(hit.adversarial.pixels[:2], hit.clean.pixels[:2])


def test_thread_14_there_is_one_result():
    """F#644, F#654: raw, clipped, success."""
    victim = small_classifier()
    hit = attack(victim, labelled_batch(victim, 6), make("pgd"))
    assert torch.equal(predict(victim, hit.adversarial.pixels), hit.logits)
    assert torch.equal(hit.logits.argmax(1) != hit.clean.labels, hit.success)


@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd", "noise", "one-pixel"])
def test_thread_15_failed_attempts_are_kept(name):
    """F#230, F#259: needed where attacks are to be recognised."""
    victim = linear_classifier(scale=1e-4, classes=3)
    shifted = victim.network.dense
    shifted.bias.data = torch.tensor([5.0, 0.0, 0.0])  # nothing so small can change this mind
    batch = labelled_batch(victim, 4)
    hit = attack(victim, batch, quick(name))
    assert not hit.success.any()
    assert (hit.step == -1).all()
    assert (hit.distance.l0 > 0).all()


@pytest.mark.parametrize("name", OURS)
def test_thread_16_a_success_is_one_after_saving(name):
    """F#264, F#423, nn_robust_attacks#3, auto-attack#44, cleverhans#265."""
    victim = small_classifier()
    hit = attack(victim, labelled_batch(victim, 4), quick(name))
    saved = torch.stack([decode_png(encode_png(image)) for image in hit.adversarial.pixels])
    assert torch.equal(predict(victim, saved).argmax(1) != hit.clean.labels, hit.success)


def test_thread_16_minimal_perturbations_survive_rounding():
    victim = linear_classifier()
    hit = attack(victim, labelled_batch(victim, 12), make("ddn"))
    assert hit.success.all()
    assert (hit.step >= 0).all()


@pytest.mark.parametrize("name", OURS)
def test_thread_17_equal_seeds_repeat_whatever_the_global_state(name):
    """F#243, auto-attack#54, A#287."""
    victim = small_classifier()
    batch = labelled_batch(victim, 3)
    torch.manual_seed(1)
    one = attack(victim, batch, quick(name), seed=7)
    torch.manual_seed(2)
    assert torch.equal(attack(victim, batch, quick(name), seed=7).adversarial.pixels, one.adversarial.pixels)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "noise", "one-pixel", "ddn"])
def test_thread_18_an_image_does_not_depend_on_its_batch(name):
    """Peers draw one stream for a batch, or loop over the images to avoid it."""
    victim = small_classifier()
    batch = labelled_batch(victim, 5)
    together = attack(victim, batch, quick(name), seed=1)
    alone = attack(victim, batch.take([3]), quick(name), seed=1)
    assert (alone.adversarial.pixels[0] == together.adversarial.pixels[3]).float().mean() > 0.99


def test_thread_20_a_network_of_half_precision_can_be_attacked():
    """auto-attack#51, T#100 (a constant of 1e10 overflows half), A#471."""
    victim = small_classifier()
    batch = labelled_batch(victim, 4)
    half = replace(victim, network=copy.deepcopy(victim.network).bfloat16())
    for name in ("pgd", "ddn"):
        hit = attack(half, batch, make(name))
        assert hit.logits.dtype == torch.float32
        assert hit.success.any()


@pytest.mark.parametrize("name", OURS)
def test_thread_22_the_input_is_not_written_to(name):
    """A#204."""
    victim = small_classifier()
    batch = labelled_batch(victim, 3)
    before, labels = batch.pixels.clone(), batch.labels.clone()
    attack(victim, batch, quick(name))
    assert torch.equal(batch.pixels, before)
    assert torch.equal(batch.labels, labels)


def test_thread_23_results_stay_where_memory_is():
    """F#600, A#1926: the GPU is taken unasked, the whole set is put on it."""
    victim = small_classifier()
    hit = attack(victim, labelled_batch(victim, 3), make("pgd"))
    tensors = [hit.adversarial.pixels, hit.logits, hit.success, hit.forwards, hit.distance.l2]
    assert {t.device.type for t in tensors} == {"cpu"}
    assert not hit.logits.requires_grad


def test_thread_24_importing_needs_no_peer_and_nothing_private():
    """A#1191, A#1568, A#1577, A#587, T#25, T#61; adv-lib imports distutils."""
    code = (
        "import sys, heatprint, heatprint.attacks as a\n"
        f"[a.ATTACKS.load(n) for n in a.names()]\n"
        f"print([m for m in sys.modules if m.partition('.')[0] in {(*PEERS, 'distutils', 'requests', 'robustbench')}])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"scipy\.(\w+\.)*_\w+|from scipy[\w.]* import _", path.read_text()), path


def test_thread_24_the_requirements_pin_nothing_and_bring_one_package():
    """T#205, T#206: requests~=2.25.1, and a second top-level package in the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [line for line in project["dependencies"] if "requests" in line or "==" in line or "~=" in line]
    assert "requests" not in " ".join(project["optional-dependencies"]["bench"])
    assert not [line for line in project["optional-dependencies"]["bench"] if line.startswith("torchattacks")]
    assert [name for name, owners in packages_distributions().items() if owners == ["heatprint"]] in (["heatprint"], [])


def test_thread_25_probabilities_are_refused_when_the_network_is_wrapped():
    """F#618, A#1330."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 3), nn.Softmax(1))
    with pytest.raises(InvalidInput, match="returns probabilities"):
        wrap(network, classes="abc", size=16)


def test_thread_28_the_success_rate_is_told_with_what_it_is_a_share_of():
    """A#1104, A#902."""
    victim = small_classifier()
    told = attack_summary(attack(victim, labelled_batch(victim, 8, wrong=3), make("noise")), victim.classes)
    assert told["success"]["total"] == 5


def test_thread_29_a_mistake_can_be_asked_to_be_a_confident_one():
    """F#626, F#683."""
    victim = linear_classifier()
    batch = labelled_batch(victim, 6)
    hit = attack(victim, batch, make("pgd", eps="40/255"), criterion=Criterion(probability=0.9))
    chance = 1 - hit.logits.softmax(1).gather(1, batch.labels[:, None]).squeeze(1)
    assert torch.equal(hit.success, chance >= 0.9)
    assert hit.success.any()


@pytest.mark.parametrize("name", OURS)
def test_two_classes_are_enough(name):
    """ART refuses them in its pixel attacks; margins and "the best other class" need care with just one other."""
    victim = linear_classifier(classes=2)
    hit = attack(victim, labelled_batch(victim, 3), quick(name))
    assert torch.equal(hit.success, hit.logits.argmax(1) != hit.clean.labels)
