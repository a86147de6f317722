"""Digests, streams, norms, lattice, goals, values: laws."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heatprint.attacks.parts.evolution import distinct
from heatprint.core.digest import digest
from heatprint.core.errors import HeatprintError, InvalidInput, UnknownName
from heatprint.core.goals import Goal, targeted, untargeted
from heatprint.core.lattice import decode_png, encode_png, parse_level, to_images, to_pixels
from heatprint.core.norms import distances, project
from heatprint.core.registry import Registry
from heatprint.core.scratch import scratch_in
from heatprint.core.streams import Streams, stream
from heatprint.core.values import Batch, join

seeds = st.integers(0, 2**31)


@dataclass(frozen=True)
class Spec:
    eps: float = 0.1


@dataclass(frozen=True)
class OtherSpec:
    eps: float = 0.1


def test_digest_tells_types_and_values_apart():
    values = [1, True, 1.0, "1", b"1", None, (1,), ((1,),), {"a": 1}, {"b": 1}, Spec(), OtherSpec(), Spec(eps=0.2),
              np.ones(2), np.ones((2, 1)), np.ones(2, np.float32), torch.zeros(2), (1, (2, 3)),
              ((1, 2), 3)]  # fmt: skip
    assert len({digest(v) for v in values}) == len(values)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(torch.arange(3)) == digest(np.arange(3))


def test_digest_refuses_what_has_no_stable_spelling():
    with pytest.raises(InvalidInput, match="has no stable spelling"):
        digest(lambda x: x)


@given(seeds, st.text(min_size=1), st.integers(0, 1000))
def test_streams_depend_on_seed_purpose_and_counter_alone(seed, name, counter):
    draw = stream(seed, name, counter=counter).random(4)
    assert np.array_equal(draw, stream(seed, name, counter=counter).random(4))
    assert not np.array_equal(draw, stream(seed + 1, name, counter=counter).random(4))
    assert not np.array_equal(draw, stream(seed, name, counter=counter + 1).random(4))
    assert not np.array_equal(draw, stream(seed, name + "x", counter=counter).random(4))


def test_streams_of_a_batch_belong_to_the_image_not_the_row():
    one = Streams(seed=1, purpose="p", ids=("a", "b")).of(1, counter=7).random(3)
    other = Streams(seed=1, purpose="p", ids=("b", "c")).of(0, counter=7).random(3)
    assert np.array_equal(one, other)


@given(seeds, st.integers(4, 60))
def test_distinct_partners_are_distinct_and_never_oneself(seed, count):
    picks = distinct(np.random.default_rng(seed), count, 3)
    rows = np.concatenate([np.arange(count)[:, None], picks], axis=1)
    assert ((picks >= 0) & (picks < count)).all()
    assert all(len(set(row)) == 4 for row in rows.tolist())


def test_distinct_partners_are_uniform():
    rng = np.random.default_rng(0)
    counts = np.zeros((6, 6))
    for _ in range(4000):
        picks = distinct(rng, 6, 3)
        for row in range(6):
            counts[row, picks[row, 2]] += 1
    off = counts[~np.eye(6, dtype=bool)]
    assert (np.diag(counts) == 0).all()
    assert abs(off - 800).max() < 5 * np.sqrt(800)


@given(seeds, st.just(0.0) | st.floats(1e-6, 2), st.sampled_from(["linf", "l2"]))
def test_projection_is_idempotent_and_inside_the_ball(seed, eps, norm):
    delta = torch.randn((3, 3, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    once = project(delta, norm, eps)
    size = once.abs().flatten(1).amax(1) if norm == "linf" else once.flatten(1).norm(dim=1)
    assert (size <= eps + 1e-12).all()
    assert torch.allclose(project(once, norm, eps), once, atol=1e-12)
    inside = delta * 0.01 * eps / delta.flatten(1).norm(dim=1).max()
    assert torch.allclose(project(inside, norm, eps), inside, atol=0)


def test_projection_onto_a_norm_without_one_says_so():
    with pytest.raises(InvalidInput, match="write 'linf', 'l2' or 'l1'"):
        project(torch.zeros(1, 2), "l0", 1.0)


@given(seeds)
def test_png_and_lattice_round_trips_are_exact(seed):
    pixels = torch.randint(0, 256, (3, 9, 7), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    assert torch.equal(decode_png(encode_png(pixels)), pixels)
    assert torch.equal(to_pixels(to_images(pixels)), pixels)


def test_distances_in_closed_form():
    clean = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    changed = clean.clone()
    changed[0, 0, 1, 2], changed[0, 2, 1, 2], changed[0, 1, 3, 3] = 103, 96, 112
    d = distances(clean, changed)
    assert (d.l0.item(), d.linf.item()) == (2, 12)
    assert d.l1.item() == pytest.approx(19 / 255)
    assert d.l2.item() == pytest.approx(13 / 255)


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), (0.5, 0.5), ("0/255", 0.0)])
def test_levels_are_read_as_fractions(text, value):
    assert parse_level(text) == value


@given(seeds, st.integers(2, 6), st.booleans())
def test_goal_is_reached_exactly_when_its_margin_is_positive(seed, classes, aim):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((16, classes), generator=generator, dtype=torch.float64)
    goal = Goal(labels=torch.randint(classes, (16,), generator=generator), targeted=aim)
    assert torch.equal(goal.reached(logits), goal.margin(logits) > 0)
    order = goal.log_probability(logits)
    assert torch.equal(goal.reached(logits) & (classes == 2), (order > np.log(0.5)) & (classes == 2))


def test_cross_entropy_has_the_direction_of_the_real_one():
    for aim in (False, True):
        logits = torch.randn((6, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_(
            True
        )
        labels = torch.tensor([0, 1, 2, 3, 0, 1])
        real = torch.nn.functional.cross_entropy(logits, labels, reduction="none") * (-1 if aim else 1)
        (expected,) = torch.autograd.grad(real.sum(), logits, retain_graph=True)
        (got,) = torch.autograd.grad(Goal(labels=labels, targeted=aim).cross_entropy(logits).sum(), logits)
        doubt = 1 - logits.softmax(1).gather(1, labels[:, None])
        assert torch.allclose(got * doubt, expected, atol=1e-12)


def test_cross_entropy_keeps_its_gradient_when_softmax_saturates():
    logits = torch.tensor([[90.0, 0.0, -5.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(Goal(labels=torch.tensor([0])).cross_entropy(logits).sum(), logits)
    assert gradient[0, 0] == pytest.approx(-1, abs=1e-6)
    assert gradient[0, 1] == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-6)


def test_a_target_that_is_the_label_is_refused():
    with pytest.raises(InvalidInput, match="is its true class 1"):
        targeted(torch.tensor([0, 1]), torch.tensor([1, 1]))
    assert not untargeted(torch.tensor([0])).targeted


def test_batch_refuses_normalised_images_and_says_what_to_write():
    with pytest.raises(InvalidInput, match=r"leave mean and std to models\.wrap"):
        Batch.from_images(ids=["a"], images=torch.full((1, 3, 4, 4), 2.1), labels=torch.tensor([0]))
    with pytest.raises(InvalidInput, match=r"write Batch\.from_images"):
        Batch(ids=("a",), pixels=torch.zeros(1, 3, 4, 4), labels=torch.tensor([0]))
    with pytest.raises(InvalidInput, match="unique"):
        Batch(ids=("a", "a"), pixels=torch.zeros(2, 3, 4, 4, dtype=torch.uint8), labels=torch.zeros(2).long())


def test_registry_names_the_nearest_and_checks_settings():
    from heatprint.attacks import ATTACKS

    with pytest.raises(UnknownName, match="Did you mean 'fgsm'"):
        ATTACKS.make("fgms")
    with pytest.raises(UnknownName, match="Did you mean 'eps'"):
        ATTACKS.make("fgsm", epss=0.1)
    with pytest.raises(InvalidInput, match="population"):
        ATTACKS.make("one-pixel", population="many")
    with pytest.raises(InvalidInput, match="write '8/255'"):
        ATTACKS.make("pgd", eps=8)
    assert ATTACKS.make("fgsm", eps="8/255").eps == 8 / 255


def test_registry_finds_entry_points(monkeypatch):
    class Point:
        name, value = "mine", "heatprint.attacks.noise:Noise"

    monkeypatch.setattr(
        "heatprint.core.registry.entry_points", lambda group: [Point] if group == "heatprint.room" else []
    )
    registry = Registry("room", {"theirs": "heatprint.attacks.pgd:PGD"})
    assert registry.names() == ["mine", "theirs"]
    assert registry.make("mine", eps=0.0).eps == 0


def test_every_error_is_in_the_tree_and_documented():
    import heatprint.core.errors as errors

    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(kinds) == 10
    for kind in kinds:
        assert issubclass(kind, HeatprintError)
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "module", ["heatprint", "heatprint.core", "heatprint.core.store", "heatprint.report", "heatprint.cli"]
)
def test_light_modules_do_not_wake_torch(module):
    code = f"import {module}, sys, json; print(json.dumps('torch' in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) is False


@given(st.lists(st.integers(0, 5), max_size=6, unique=True))
def test_what_some_images_are_does_not_depend_on_how_it_is_asked(rows):
    """Known prints, taken ones and computed ones are the same, and another pixel is another image."""
    pixels = torch.arange(6 * 3 * 4, dtype=torch.uint8).view(6, 3, 2, 2)
    batch = Batch(ids=tuple("abcdef"), pixels=pixels, labels=torch.arange(6))
    index = torch.tensor(rows, dtype=torch.long)
    fresh = Batch(ids=tuple("abcdef"[row] for row in rows), pixels=pixels[index], labels=index)
    told = {digest(*fresh.identity), digest(*batch.take(index).identity), digest(*batch.identity_of(index)),
            digest(*batch.printed(batch.prints).take(index).identity)}  # fmt: skip
    assert len(told) == 1
    changed = pixels.clone()
    changed[3, 1, 0, 1] += 1
    differs = (batch.with_pixels(changed).prints != batch.prints).any(1)
    assert differs.tolist() == [False, False, False, True, False, False]


def test_what_is_taken_of_many_images_lies_on_disk_and_is_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr("heatprint.core.scratch.LARGE", 1000)
    batch = Batch(ids=tuple(map(str, range(50))), pixels=torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8),
                  labels=torch.zeros(50, dtype=torch.long))  # fmt: skip
    with scratch_in(tmp_path):
        taken = batch.take(torch.arange(49, -1, -1))
        both = join([batch, Batch(ids=("x",), pixels=batch.pixels[:1], labels=torch.zeros(1, dtype=torch.long))])
    assert torch.equal(taken.pixels, batch.pixels.flip(0))
    assert torch.equal(both.pixels[:50], batch.pixels)
    assert not list(tmp_path.iterdir()), "its file has no name"
