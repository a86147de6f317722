"""Attacks that see labels, attacks on many images at once, rotations, and controls, against known answers."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from heatprint.attacks import attack, make
from heatprint.attacks.access import LabelAccess
from heatprint.attacks.ledger import Budget
from heatprint.attacks.parts.crossfit import halves
from heatprint.attacks.parts.decision import bisect, find_start
from heatprint.attacks.patch import cut, pasted
from heatprint.attacks.spatial import Spatial, moved
from heatprint.core.errors import InvalidInput
from heatprint.core.goals import targeted, untargeted
from heatprint.core.lattice import to_pixels
from heatprint.core.norms import length
from heatprint.core.streams import Streams
from heatprint.core.values import Batch
from heatprint.models import predict, wrap
from heatprint.testing import Linear, labelled_batch, linear_classifier, small_classifier

ROUNDING = 13  # the most label queries `settle` spends on an image
LABEL = {"boundary": {"queries": 1200}, "hopskipjump": {"iterations": 8, "probes": 50}}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Several threads only slow down networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(weight, size, bias=None):
    """A linear classifier of the given weights [K, 3 * size * size], centred on grey by default."""
    bias = -weight.sum(1) / 2 if bias is None else bias
    return wrap(Linear(weight, bias), classes=[f"class {i}" for i in range(len(weight))], size=size)


def distance_to_boundary(classifier, batch, order):
    """Of a linear classifier of two classes: lead of the true class over the dual norm of the weights, float [N]."""
    dense = classifier.network.dense
    weight, bias = dense.weight[1] - dense.weight[0], dense.bias[1] - dense.bias[0]
    lead = (batch.images.flatten(1) @ weight + bias).abs()
    return lead / torch.linalg.vector_norm(weight, ord=order)


def least_likely(classifier, batch):
    return predict(classifier, batch.pixels).argsort(1)[:, 0]


def constant(size=6):
    """A classifier that says class 0 to everything, with zero gradients."""
    return model(torch.zeros((3, 3 * size * size)), size, torch.tensor([1.0, 0.0, -1.0]))


# label access


@pytest.mark.parametrize(
    ("name", "settings"), [("boundary", {"queries": 2000}), ("hopskipjump", {}), ("hopskipjump", LABEL["hopskipjump"])]
)
def test_label_attacks_come_near_the_shortest_l2_perturbation_of_a_linear_model(name, settings):
    linear = linear_classifier(size=6)
    batch = labelled_batch(linear, 24)
    nearest = distance_to_boundary(linear, batch, 2)
    clear = nearest > 10 / 255  # nearer than that, the 8-bit lattice itself is too coarse
    hit = attack(linear, batch, make(name, **settings))
    assert hit.success.all()
    assert clear.sum() >= 12
    ratio = (hit.distance.l2 / nearest)[clear]
    assert ratio.min() > 1 - 1e-6, "nothing beats the optimum"
    assert ratio.max() < 1.25
    assert torch.equal(hit.backwards, torch.zeros(24).long())


def test_hopskipjump_comes_near_the_smallest_box_of_a_linear_model():
    linear = linear_classifier(size=6, scale=0.02)
    linear = replace(linear, network=model(linear.network.dense.weight, 6, torch.tensor([0.0, 0.15])).network)
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randint(64, 192, (16, 3, 6, 6), generator=generator).to(torch.uint8)
    batch = Batch(ids=tuple(map(str, range(16))), pixels=pixels, labels=predict(linear, pixels).argmax(1))
    nearest = distance_to_boundary(linear, batch, 1) * 255
    hit = attack(linear, batch, make("hopskipjump", norm="linf", iterations=12))
    clear = (nearest > 5) & (nearest < 60)  # coarser than 5 levels rounding decides, past 60 clipping does
    assert clear.sum() >= 8
    assert hit.success.all()
    assert (hit.distance.linf >= nearest - 1e-3).all(), "nothing beats the optimum"
    assert (hit.distance.linf[clear] / nearest[clear]).max() < 1.3
    wide = attack(linear, batch, make("hopskipjump", iterations=12))
    assert (hit.distance.linf[clear] < wide.distance.linf[clear]).all(), "the norm asked for is the one minimised"


@pytest.mark.parametrize("name", ["boundary", "hopskipjump"])
def test_more_queries_give_smaller_perturbations(small, name):
    batch = labelled_batch(small, 4)
    few = {"boundary": {"queries": 120}, "hopskipjump": {"iterations": 1, "probes": 20}}[name]
    many = {"boundary": {"queries": 500}, "hopskipjump": {"iterations": 5, "probes": 40}}[name]
    first, second = (attack(small, batch, make(name, **settings)) for settings in (few, many))
    assert first.success.all()
    assert second.success.all()
    assert (second.distance.l2 < first.distance.l2).all()
    assert (second.forwards > first.forwards).all()


@pytest.mark.parametrize("name", ["boundary", "hopskipjump"])
def test_label_attacks_reach_the_least_likely_class(name):
    victim = linear_classifier(size=6, classes=4, scale=0.1)
    batch = labelled_batch(victim, 12, seed=5)
    targets = least_likely(victim, batch)
    hit = attack(victim, batch, make(name, **LABEL[name]), targets=targets)
    assert torch.equal(hit.logits.argmax(1), targets)
    assert (hit.step >= 0).all()
    gradients = attack(victim, batch, make("ddn", steps=200), targets=targets)
    assert gradients.success.all()
    assert (hit.distance.l2 / gradients.distance.l2).max() < 1.4


@pytest.mark.parametrize("name", ["boundary", "hopskipjump"])
def test_label_attacks_keep_a_failed_try_where_no_start_is_found(name):
    victim = constant()
    batch = labelled_batch(victim, 3)
    hit = attack(victim, batch, make(name, tries=7))
    assert not hit.success.any()
    assert (hit.step == -1).all()
    assert torch.equal(hit.forwards, torch.full((3,), 7))
    assert (hit.distance.l0 > 0).all()


def test_boundary_keeps_its_count_of_queries(small):
    hit = attack(small, labelled_batch(small, 4), make("boundary", queries=200))
    assert (hit.forwards > 200 - 3).all()
    assert (hit.forwards <= 200 + ROUNDING).all()


@pytest.mark.parametrize("name", ["boundary", "hopskipjump", "spatial", "universal", "patch"])
def test_a_spent_budget_ends_in_an_orderly_way(small, name):
    settings = {"boundary": {"queries": 100}, "hopskipjump": {"iterations": 2, "probes": 20}}.get(name, {"epochs": 6})
    if name == "spatial":
        settings = {"angles": 5, "shifts": 3}
    batch = labelled_batch(small, 4)
    hit = attack(small, batch, make(name, **settings), budget=Budget(forwards=9, backwards=4))
    assert int(hit.forwards.max()) <= 9
    assert int(hit.backwards.max()) <= 4
    assert torch.isfinite(hit.logits).all()


def test_a_start_is_the_first_drawn_picture_that_reaches_the_goal():
    victim = linear_classifier(size=6, classes=4)
    batch = labelled_batch(victim, 8)
    goal, rows = targeted(batch.labels, least_likely(victim, batch)), torch.arange(8)
    access = LabelAccess(victim, goal, batch.images)
    start, found = find_start(access, batch.images, rows, Streams(seed=0, purpose="x", ids=batch.ids), 60)
    assert (found >= 0).all()
    assert (found > 0).any(), "the least likely class is not met at once"
    assert torch.equal(access.ledger.forwards, found + 1)
    assert goal.reached(victim(start)).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_bisection_ends_within_the_gap_beyond_the_boundary(norm):
    linear = linear_classifier(size=6)
    batch = labelled_batch(linear, 6)
    clean, far = batch.images, 1 - batch.images  # the negative is on the other side of a model centred on grey
    gap = torch.tensor([0.1, 0.01, 1e-3, 1e-3, 1e-3, 1e-3])
    access = LabelAccess(linear, untargeted(batch.labels), clean)
    found = bisect(access, clean, far, torch.arange(6), norm, gap)
    assert access.reached(found, torch.arange(6)).all()
    size = length(found - clean, norm)
    shorter = clean + (found - clean) * ((size - 1.01 * gap) / size).view(-1, 1, 1, 1)
    if norm == "linf":
        bound = (size - 1.01 * gap).view(-1, 1, 1, 1)
        shorter = clean + (found - clean).clamp(-bound, bound)
    inside = size > 1.01 * gap
    assert inside.any()
    assert not access.reached(shorter, torch.arange(6))[inside].any()


# rotations and shifts


def brute_force(classifier, batch, method, goal):
    """Every transformation of every image: whether it reaches the goal, and its margin, [N, T] each."""
    grid = method.grid()
    logits = torch.stack([classifier(moved(batch.images, t.expand(len(batch), 3))) for t in grid], 1)
    columns = [(goal.reached(logits[:, i]), goal.margin(logits[:, i])) for i in range(len(grid))]
    return torch.stack([c[0] for c in columns], 1), torch.stack([c[1] for c in columns], 1)


@pytest.mark.parametrize("aim", [False, True])
def test_spatial_returns_the_mildest_success_or_the_largest_margin(aim):
    victim = small_classifier(classes=4, seed=2)
    batch = labelled_batch(victim, 24, seed=5)
    targets = least_likely(victim, batch) if aim else None
    method = Spatial(angles=7, shifts=3, degrees=2, share=0.005)
    hit = attack(victim, batch, method, targets=targets)
    goal = targeted(batch.labels, targets) if aim else untargeted(batch.labels)
    reached, margin = brute_force(victim, batch, method, goal)
    fell = reached.any(1)
    assert torch.equal(hit.success, fell)
    assert not fell.all()
    expected = torch.where(fell, reached.int().argmax(1), margin[:, 1:].argmax(1) + 1)
    assert torch.equal(hit.step, torch.where(fell, expected, -1))
    assert torch.equal(hit.trace["angle"], method.grid()[expected, 0])
    for row, place in enumerate(expected.tolist()):
        again = moved(batch.images[row : row + 1], method.grid()[place][None])
        assert torch.equal(hit.adversarial.pixels[row], to_pixels(again)[0])
    if not aim:
        assert fell.any()


def test_the_grid_starts_with_the_identity_and_grows():
    grid = Spatial(angles=3, shifts=3, degrees=20, share=0.1).grid()
    assert grid.shape == (27, 3)
    assert torch.equal(grid[0], torch.zeros(3))
    size = (grid / torch.tensor([20, 0.1, 0.1])).square().sum(1)
    assert (size.diff() >= -1e-6).all()
    assert torch.unique(grid, dim=0).shape == (27, 3)


def test_moved_turns_counter_clockwise_and_shifts_down_and_right():
    images = labelled_batch(small_classifier(), 2).images
    turned = moved(images, torch.tensor([[90.0, 0, 0], [-90.0, 0, 0]]))
    assert (turned[0] - torch.rot90(images[0], 1, (1, 2))).abs().max() < 1.5 / 255
    assert (turned[1] - torch.rot90(images[1], -1, (1, 2))).abs().max() < 1.5 / 255
    slid = moved(images, torch.tensor([[0.0, 3 / 16, 0], [0.0, 0, 2 / 16]]))
    padded = [np.pad(i.numpy(), ((0, 0), (3, 3), (3, 3)), mode="symmetric") for i in images]
    assert np.abs(slid[0].numpy() - padded[0][:, :16, 3:19]).max() < 1.5 / 255
    assert np.abs(slid[1].numpy() - padded[1][:, 3:19, 1:17]).max() < 1.5 / 255
    both = moved(images[:1], torch.tensor([[90.0, 3 / 16, 0]]))[0]  # turned first, then shifted
    assert (both[:, 3:] - torch.rot90(images[0], 1, (1, 2))[:, :13]).abs().max() < 1.5 / 255


def test_moved_shows_no_frame_and_leaves_the_identity_alone():
    white = torch.ones((1, 3, 16, 16))
    for transformation in Spatial(angles=5, shifts=3).grid():
        assert torch.equal(moved(white, transformation[None]), white)
    images = torch.rand((1, 3, 16, 16))
    assert torch.equal(moved(images, torch.zeros((1, 3))), images)


# one perturbation for many images


def one_class(classifier, count, label=0):
    """Images of one class only: for these a linear classifier has one best perturbation."""
    batch = labelled_batch(classifier, 4 * count)
    return batch.take((batch.labels == label).nonzero().squeeze(1)[:count])


def test_universal_finds_the_best_perturbation_of_a_linear_model():
    linear = linear_classifier(scale=0.02)
    batch = one_class(linear, 12)
    hit = attack(linear, batch, make("universal", eps="6/255", epochs=15))
    weight = (linear.network.dense.weight[1] - linear.network.dense.weight[0]).view(3, 12, 12)
    moved_by = hit.adversarial.pixels.int() - batch.pixels.int()
    assert torch.equal(moved_by, (6 * weight.sign()).int().expand_as(moved_by))
    assert torch.equal(hit.step, hit.success.long() - 1)
    assert torch.equal(hit.backwards, torch.full((12,), 15))


def test_patch_finds_the_best_colours_of_a_linear_model():
    weight = torch.zeros((2, 3, 16, 16))
    weight[1] = torch.tensor([0.02, -0.02, 0.01]).view(3, 1, 1)
    linear = model(weight.flatten(1), 16)
    batch = one_class(linear, 10)
    hit = attack(linear, batch, make("patch", side=0.25))
    corner = torch.stack([hit.trace["row"], hit.trace["column"]], 1)
    squares = cut(hit.adversarial.images, corner, 4)
    assert torch.equal(squares, torch.tensor([1.0, 0, 1]).view(1, 3, 1, 1).expand_as(squares))
    assert (hit.distance.l0 == 16).all(), "nothing but the patch has changed"
    assert len(set(map(tuple, corner.tolist()))) > 3, "each image has a place of its own"


@pytest.mark.parametrize("name", ["universal", "patch"])
def test_nobody_is_judged_on_a_perturbation_fitted_on_itself(small, name):
    batch = labelled_batch(small, 12)
    first = attack(small, batch, make(name, epochs=4))
    fold = first.trace["fold"]
    assert torch.equal(torch.bincount(fold), torch.tensor([6, 6]))
    changed = batch.pixels.clone()
    changed[0] = changed[0].flip(2)
    other = Batch(ids=batch.ids, pixels=changed, labels=predict(small, changed).argmax(1))
    assert torch.equal(other.labels, batch.labels)
    second = attack(small, other, make(name, epochs=4))
    same = (first.adversarial.pixels == second.adversarial.pixels).flatten(1).all(1)
    assert same[fold == fold[0]][batch.pixels.eq(changed).flatten(1).all(1)[fold == fold[0]]].all()
    assert not same[fold != fold[0]].any()


@pytest.mark.parametrize("name", ["universal", "patch"])
def test_shared_perturbations_do_not_depend_on_the_order_of_the_images(small, name):
    batch = labelled_batch(small, 11)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    first = attack(small, batch, make(name, epochs=3, minibatch=4))
    second = attack(small, batch.take(order), make(name, epochs=3, minibatch=4))
    assert torch.equal(second.adversarial.pixels, first.adversarial.pixels[order])
    assert torch.equal(second.trace["fold"], first.trace["fold"][order])


def test_halves_follow_ids_and_differ_by_one_image_at_most():
    for count in (0, 1, 2, 7):
        first, second = halves(Streams(seed=0, purpose="x", ids=[f"i{k}" for k in range(count)]), count)
        assert len(first) - len(second) == count % 2
        assert sorted([*first.tolist(), *second.tolist()]) == list(range(count))


@pytest.mark.parametrize("name", ["universal", "patch"])
def test_a_single_image_gets_a_perturbation_that_was_fitted_on_nothing(small, name):
    hit = attack(small, labelled_batch(small, 1), make(name))
    assert hit.backwards.tolist() == [0]
    assert hit.forwards.tolist() == [1]
    assert int(hit.distance.l0) > 0


@pytest.mark.parametrize(
    ("name", "settings", "least"),
    [("universal", {"eps": "30/255", "step": "4/255"}, 1.0), ("patch", {"side": 0.6}, 0.4)],
)
def test_shared_perturbations_aim_at_the_least_likely_class(name, settings, least):
    victim = linear_classifier(size=8, classes=4, scale=0.1)
    batch = labelled_batch(victim, 60, seed=5)
    targets = least_likely(victim, batch)
    same = (targets == targets.mode().values).nonzero().squeeze(1)[:16]  # one perturbation can have one aim only
    batch, targets = batch.take(same), targets[same]
    hit = attack(victim, batch, make(name, **settings), targets=targets)
    assert torch.equal(hit.success, hit.logits.argmax(1) == targets)
    before = hit.clean_logits.log_softmax(1).gather(1, targets[:, None])
    after = hit.logits.log_softmax(1).gather(1, targets[:, None])
    assert (after > before).all()
    assert hit.success.float().mean() >= least
    noise = attack(victim, batch, make("noise", eps="40/255"))
    assert not (noise.logits.argmax(1) == targets).any(), "without aim the target is not met"


def test_pasted_and_cut_are_inverse_and_leave_the_images_alone():
    images, patch = torch.rand((3, 3, 8, 8)), torch.rand((3, 3, 3))
    place, before = torch.tensor([[0, 0], [5, 2], [3, 5]]), images.clone()
    out = pasted(images, patch, place)
    assert torch.equal(images, before)
    assert torch.equal(cut(out, place, 3), patch.expand(3, 3, 3, 3))
    assert torch.equal(out[1, :, 5:8, 2:5], patch)
    assert int((out != images).any(1).sum()) == 27


@pytest.mark.parametrize("name", ["spatial", "universal", "patch"])
def test_a_constant_classifier_stands(name):
    victim = constant()
    hit = attack(victim, labelled_batch(victim, 4), make(name))
    assert not hit.success.any()
    assert (hit.step == -1).all()
    assert (hit.distance.l0 > 0).all()


# controls


@pytest.mark.parametrize("kind", ["sign", "uniform", "gaussian"])
@pytest.mark.parametrize("eps", [0.5, 2.0, 6.0])
def test_noise_has_the_length_asked_for_in_l2_even_at_the_borders(small, kind, eps):
    batch = labelled_batch(small, 3)
    pixels = batch.pixels.clone()
    pixels[0], pixels[1, :, :8] = 0, 255
    batch = Batch(ids=batch.ids, pixels=pixels, labels=predict(small, pixels).argmax(1))
    hit = attack(small, batch, make("noise", norm="l2", kind=kind, eps=eps))
    assert (hit.distance.l2 <= eps + 1e-9).all()
    assert (hit.distance.l2 > 0.98 * eps).all()
    assert not hit.forwards.any()


def test_noise_kinds_in_the_maximum_norm(small):
    batch = labelled_batch(small, 6)
    by = {
        kind: attack(small, batch, make("noise", kind=kind, eps="20/255")) for kind in ("sign", "uniform", "gaussian")
    }
    for hit in by.values():
        assert (hit.distance.linf == 20).all()
    levels = {kind: (hit.adversarial.pixels.int() - batch.pixels.int()).double() for kind, hit in by.items()}
    assert (levels["sign"].abs() == 20).all()
    assert 11 < float(levels["uniform"].std()) < 13  # of a uniform draw from -20 to 20: 11.8
    assert float(levels["gaussian"].std()) < 8  # the largest of 768 normal draws is about 3.2 standard deviations
    assert abs(float((levels["gaussian"].abs() < levels["gaussian"].std()).double().mean()) - 0.68) < 0.05


@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_what_pillow_saves(small, quality):
    batch = labelled_batch(small, 5)
    hit = attack(small, batch, make("jpeg", quality=quality))
    for before, after in zip(batch.pixels, hit.adversarial.pixels, strict=True):
        sink = io.BytesIO()
        Image.fromarray(before.permute(1, 2, 0).numpy()).save(sink, format="JPEG", quality=quality)
        expected = np.asarray(Image.open(sink).convert("RGB"))
        assert np.array_equal(after.permute(1, 2, 0).numpy(), expected)


def test_worse_jpeg_is_farther_away(small):
    batch = labelled_batch(small, 5)
    far, near = (attack(small, batch, make("jpeg", quality=q)).distance.l2 for q in (10, 95))
    assert (far > near).all()


def test_blur_spreads_a_point_like_a_gaussian(small):
    pixels = torch.zeros((1, 3, 16, 16), dtype=torch.uint8)
    pixels[:, :, 8, 8] = 255
    batch = Batch(ids=("point",), pixels=pixels, labels=predict(small, pixels).argmax(1))
    spread = attack(small, batch, make("blur", sigma=1.0)).adversarial.images[0, 0]
    profile = torch.exp(-torch.arange(-8, 8).double().square() / 2)
    expected = torch.outer(profile, profile) / profile.sum() ** 2
    assert (spread - expected).abs().max() < 1 / 255
    assert torch.equal(attack(small, batch, make("blur", sigma=0.0)).adversarial.pixels, pixels)
    flat = Batch(ids=("flat",), pixels=torch.full_like(pixels, 77), labels=predict(small, pixels * 0 + 77).argmax(1))
    assert torch.equal(attack(small, flat, make("blur", sigma=5.0)).adversarial.pixels, flat.pixels)


@pytest.mark.parametrize("share", [0.01, 0.2, 1.0])
def test_salt_and_pepper_sets_its_share_of_pixels_to_black_or_white(small, share):
    batch = labelled_batch(small, 6)  # mid-grey: every pixel set has changed
    hit = attack(small, batch, make("salt-pepper", share=share))
    assert (hit.distance.l0 == round(share * 256)).all()
    touched = (hit.adversarial.pixels != batch.pixels).any(1)
    values = hit.adversarial.pixels.permute(0, 2, 3, 1)[touched]
    assert torch.equal(values.amin(1), values.amax(1))
    assert set(values.unique().tolist()) == {0, 255}
    assert len(torch.unique(touched.flatten(1), dim=0)) == (1 if share == 1 else 6)


@pytest.mark.parametrize("name", ["noise", "salt-pepper", "blur"])
def test_controls_of_no_strength_change_nothing(small, name):
    batch = labelled_batch(small, 3)
    for settings in {
        "noise": [{"eps": 0.0, "kind": k, "norm": n} for k in ("sign", "uniform", "gaussian") for n in ("linf", "l2")],
        "salt-pepper": [{"share": 0.0}],
        "blur": [{"sigma": 0.0}],
    }[name]:
        assert torch.equal(attack(small, batch, make(name, **settings)).adversarial.pixels, batch.pixels)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("boundary", {"queries": 0}, "queries = 0"),
        ("boundary", {"towards": 1.0}, "shares of the distance"),
        ("hopskipjump", {"probes": 0}, "probes = 0"),
        ("hopskipjump", {"norm": "l0"}, "norm = 'l0'|norm"),
        ("spatial", {"angles": 4}, "Write 5"),
        ("spatial", {"share": 0.0}, "shifts=1"),
        ("spatial", {"degrees": 200}, "degrees = 200"),
        ("universal", {"eps": 8}, "8/255"),
        ("universal", {"epochs": 0}, "epochs = 0"),
        ("patch", {"side": 1.5}, "share of the image's side"),
        ("patch", {"rate": 0.0}, "rate = 0"),
        ("noise", {"eps": 8}, "8/255"),
        ("noise", {"eps": -1.0, "norm": "l2"}, "0 or more"),
        ("jpeg", {"quality": 0}, "quality = 0"),
        ("blur", {"sigma": -1.0}, "sigma = -1"),
        ("salt-pepper", {"share": 2.0}, "0.01 for 1 %"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(name, settings, message):
    with pytest.raises(InvalidInput, match=message):
        make(name, **settings)
