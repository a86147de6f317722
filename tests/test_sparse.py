"""The sparse forward against the plain one in float64, and when it is used."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from torch import nn

from heatprint.attacks.access import ScoreAccess
from heatprint.attacks.ledger import Budget
from heatprint.core.errors import Unsupported
from heatprint.core.goals import untargeted
from heatprint.models import load, wrap
from heatprint.models.sparse import SparseForward, check, forward, sparse_forward
from heatprint.testing import labelled_batch, small_classifier


class Functional(nn.Module):
    """Functional calls, in-place sums, subtraction, concatenation, unfolded batch norm, average pooling."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.three = nn.BatchNorm2d(32), nn.Conv2d(32, 8, 1)
        self.pool, self.last = nn.AvgPool2d(2), nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.one(x))
        y = self.two(x).sigmoid()
        y = y - x
        y += x
        x = torch.cat([y, x], 1)
        x = F.gelu(self.norm(x))
        x = self.pool(torch.tanh(self.three(x)))
        return self.last(x.mean((2, 3)))


class Strided(nn.Module):
    """A residual block whose two branches halve the map in different ways, and a stem that looks seven cells far."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(
            nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        )
        self.short = nn.Conv2d(16, 16, 1, stride=2)
        self.head = nn.Sequential(nn.Dropout(), nn.Flatten(), nn.LazyLinear(4))

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.relu(self.body(x) + self.short(x)))


class Viewed(nn.Module):
    """Sizes read from activations, functional pooling, a branch that leads nowhere, a stretched sum."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.dead = (nn.Conv2d(c, 16, 3, 1, 1) for c in (3, 16, 16))
        self.last = nn.LazyLinear(3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.one(x), True), 2, padding=1)
        self.dead(x).softmax(1)
        x = torch.cat(tensors=(self.two(x), x), dim=1)
        x = x + F.avg_pool2d(x, (x.size(2), 1))
        return self.last(x.view(x.size(0), -1))


def layers(*made):
    return nn.Sequential(*made, nn.Flatten(), nn.LazyLinear(2))


NETWORKS = {
    "functional": (Functional, 24),
    "strided": (Strided, 41),
    "odd sizes": (
        lambda: layers(nn.Conv2d(3, 20, 3), nn.SiLU(), nn.MaxPool2d(3, 2), nn.Conv2d(20, 24, 5, 1, 1), nn.MaxPool2d(2)),
        35,
    ),
    "dilated": (
        lambda: layers(
            nn.Conv2d(3, 16, 3, padding=3, dilation=3), nn.ReLU(), nn.Conv2d(16, 8, (1, 3), padding=(0, 1)), nn.ELU()
        ),
        32,
    ),
    "even kernels": (
        lambda: layers(nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 4, 2), nn.AvgPool2d(3, 2, 1)),
        33,
    ),
    "overlapping pools": (
        lambda: layers(nn.Conv2d(3, 17, 3, 1, 1), nn.LeakyReLU(), nn.MaxPool2d(3, 1, 1), nn.Conv2d(17, 9, 3, 3)),
        30,
    ),
    "same padding": (
        lambda: layers(nn.Conv2d(3, 16, 5, padding="same", dilation=2), nn.ReLU(), nn.Conv2d(16, 8, 1)),
        30,
    ),
    "overhanging pool": (
        lambda: layers(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(16, 8, 3)),
        30,
    ),
    "viewed": (lambda: Viewed(), 26),
    "grouped tail": (
        lambda: layers(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3, groups=4), nn.ReLU()),
        40,
    ),
}  # fmt: skip
if Version(torch.__version__) < Version("2.9"):  # 2.6 and 2.8 cannot trace a pooling by a size they trace
    del NETWORKS["viewed"]


def classifier(name):
    build, size = NETWORKS[name]
    torch.manual_seed(len(name))
    network = build().eval()
    network(torch.zeros(2, 3, size, size))
    for module in network.modules():  # statistics that make folding matter
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    outputs = network(torch.zeros(1, 3, size, size)).shape[1]
    return wrap(
        network, classes=[f"c{i}" for i in range(outputs)], size=size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1)
    )


def candidates(size, count, edits, seed=0, images=3):
    """Edits of noise images: random ones, and every corner of the image."""
    rng = torch.Generator().manual_seed(seed)
    clean = torch.rand((images, 3, size, size), generator=rng)
    rows = torch.randint(0, images, (count,), generator=rng)
    places = torch.randint(0, size, (count, edits, 2), generator=rng)
    edge = size - 1
    places[:4, 0] = torch.tensor([[0, 0], [0, edge], [edge, 0], [edge, edge]])
    colours = torch.rand((count, edits, 3), generator=rng) * 20 - 10  # ten times what a pixel can do
    return clean, rows, places, colours


def painted(clean, rows, places, colours):
    tried = clean[rows].clone()
    for edit in range(places.shape[1]):
        tried[torch.arange(len(rows)), :, places[:, edit, 0], places[:, edit, 1]] = colours[:, edit]
    return tried


def exact(model, images):
    network = copy.deepcopy(model.network).double()
    with torch.no_grad():
        return replace(model, network=network)(images.double())


@pytest.mark.parametrize("edits", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_sparse_logits_are_as_exact_as_plain_ones(name, edits):
    model = classifier(name)
    clean, rows, places, colours = candidates(model.size, 40, edits)
    images = painted(clean, rows, places, colours)
    truth = exact(model, images)
    got = SparseForward(model)(clean, rows, places, colours)
    with torch.no_grad():
        plain = model(images)
    scale = truth.abs().max()
    error, plain_error = (got - truth).abs().max() / scale, (plain - truth).abs().max() / scale
    assert (truth - exact(model, clean[rows])).abs().max() / scale > 1e-2, "the edits matter"
    assert error < 1e-5
    assert error < 3 * plain_error + 1e-6


@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(NETWORKS)), edits=st.integers(1, 5))
def test_any_edit_of_any_network(seed, name, edits):
    model = classifier(name)
    clean, rows, places, colours = candidates(model.size, 7, edits, seed)
    truth = exact(model, painted(clean, rows, places, colours))
    got = SparseForward(model)(clean, rows, places, colours)
    assert (got - truth).abs().max() / truth.abs().max() < 1e-5


def test_of_two_edits_of_one_pixel_the_last_counts():
    model = classifier("odd sizes")
    clean, rows, places, colours = candidates(model.size, 6, 2)
    places[:, 1] = places[:, 0]
    sparse = SparseForward(model)
    both, last = sparse(clean, rows, places, colours), sparse(clean, rows, places[:, 1:], colours[:, 1:])
    assert torch.allclose(both, last, atol=1e-5)


def test_images_beyond_what_can_be_held_are_recorded_again(monkeypatch):
    model = classifier("strided")
    clean, rows, places, colours = candidates(model.size, 30, 1, images=7)
    whole = SparseForward(model)(clean, rows, places, colours)
    monkeypatch.setattr(forward, "HELD_IMAGES", 2)
    few = SparseForward(model).session(clean)
    assert torch.equal(few(rows, places, colours), few(rows, places, colours))
    assert torch.allclose(few(rows, places, colours), whole, atol=1e-5)


def test_other_images_are_not_taken_for_the_held_ones():
    model = classifier("odd sizes")
    sparse = SparseForward(model)
    for seed in (0, 1):
        clean, rows, places, colours = candidates(model.size, 10, 1, seed)
        truth = exact(model, painted(clean, rows, places, colours))
        assert torch.allclose(sparse(clean, rows, places, colours).double(), truth, atol=1e-4)


def test_the_first_layers_cost_next_to_nothing():
    """Multiplications, not seconds: VGG at 112 px loses more than five sixths of them."""
    assert SparseForward(load("vgg-slim", classes=("a", "b"), size=112)).gain > 6


class Branching(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :2] * (2 if x.sum() > 0 else 1)


class Aliasing(nn.Module):
    """Dropout returns its input when it is off, so the rectified values are what the last sum reads."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.act, self.drop = nn.ReLU(inplace=True), nn.Dropout()

    def forward(self, x):
        x = self.one(x)
        return (x + self.two(self.act(self.drop(x)))).mean((2, 3))[:, :2]


class Overwriting(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.act = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 2, 3), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.one(x)
        return self.two(self.act(x) + x).mean((2, 3))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Branching(), "cannot be traced"),
        (Overwriting(), "overwrites an activation"),
        (Aliasing(), "overwrites an activation"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2)), "fewer than two"),
        (layers(nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 2, 3)), "fewer than two"),
    ],
)
def test_other_networks_take_the_plain_path_and_say_why(network, reason, caplog):
    network(torch.zeros(1, 3, 24, 24))
    model = wrap(network, classes=("a", "b"), size=24)
    with pytest.raises(Unsupported, match=reason):
        SparseForward(model)
    with caplog.at_level(logging.INFO, logger="heatprint"):
        assert sparse_forward(model) is None
    assert [reason in r.getMessage() for r in caplog.records] == [True]
    clean, rows, places, colours = candidates(24, 9, 2)
    access = ScoreAccess(model, untargeted(torch.zeros(3, dtype=torch.long)), clean)
    with torch.no_grad():
        truth = model(painted(clean, rows, places, colours))
    assert torch.allclose(access.recoloured(rows, places, colours), truth, atol=1e-4)


def test_a_wrong_sparse_forward_is_not_used(monkeypatch, caplog):
    model = load("vgg-slim", classes=("a", "b"), size=112)
    monkeypatch.setattr(forward.Session, "__call__", lambda self, rows, *_: torch.zeros(len(rows), 2))
    with caplog.at_level(logging.INFO, logger="heatprint"):
        assert sparse_forward(model) is None
    assert "differ" in caplog.text


def test_an_error_that_a_large_bias_hides_is_found(monkeypatch, caplog):
    model = load("vgg-slim", classes=("a", "b"), size=112)
    with torch.no_grad():
        [m for m in model.network.modules() if isinstance(m, nn.Linear)][-1].bias.add_(1e4)
    right = forward.Session.__call__
    monkeypatch.setattr(
        forward.Session, "__call__", lambda self, *edits: (got := right(self, *edits)).mean(0, True).expand_as(got)
    )
    with caplog.at_level(logging.INFO, logger="heatprint"):
        found = sparse_forward(model)
    assert found is None
    assert "too much or too little" in caplog.text


def test_a_network_of_an_unforeseen_kind_keeps_its_attack(monkeypatch, caplog):
    model = load("vgg-slim", classes=("a", "b"), size=112)

    def broken(self, *_):
        raise IndexError("of a kind nobody foresaw")

    monkeypatch.setattr(forward.SparseForward, "run", broken)
    clean, rows, places, colours = candidates(112, 5, 1)
    access = ScoreAccess(model, untargeted(torch.zeros(3, dtype=torch.long)), clean)
    with caplog.at_level(logging.INFO, logger="heatprint"), torch.no_grad():
        got = access.recoloured(rows, places, colours)
        assert torch.allclose(got, model(painted(clean, rows, places, colours)), atol=1e-4)
    assert "IndexError: of a kind nobody foresaw" in caplog.text


def test_the_sparse_forward_goes_with_its_classifier(monkeypatch):
    monkeypatch.setattr(check, "_speed", lambda *_: 1.0)
    model = load("vgg-slim", classes=("a", "b"), size=112)
    kept = weakref.ref(sparse_forward(model))
    assert kept() is not None
    del model
    gc.collect()
    assert kept() is None


def test_no_candidate_is_no_error():
    model = classifier("odd sizes")
    clean, rows, places, colours = candidates(model.size, 5, 1)
    assert SparseForward(model)(clean, rows[:0], places[:0], colours[:0]).shape == (0, len(model.classes))


def test_weights_written_to_are_noticed(monkeypatch):
    monkeypatch.setattr(check, "_speed", lambda *_: 1.0)
    model = load("vgg-slim", classes=("a", "b"), size=112)
    first = sparse_forward(model)
    assert first is not None
    assert sparse_forward(model) is first
    with torch.no_grad():
        next(model.network.parameters()).mul_(2.0)
    second = sparse_forward(model)
    assert second is not first
    clean, rows, places, colours = candidates(112, 5, 1)
    assert torch.allclose(
        second(clean, rows, places, colours).double(), exact(model, painted(clean, rows, places, colours)), atol=1e-3
    )


@pytest.mark.parametrize("edits", [1, 2])
def test_recoloured_is_the_plain_forward_of_the_painted_image(edits, monkeypatch):
    monkeypatch.setattr(check, "GAIN_FROM", 0.0)
    monkeypatch.setattr(check, "LARGE_FROM", 0.0)
    monkeypatch.setattr(check, "_speed", lambda *_: 1.0)
    model = small_classifier()
    batch = labelled_batch(model, 3)
    assert sparse_forward(model) is not None
    access = ScoreAccess(model, untargeted(batch.labels), batch.images, budget=Budget(forwards=4))
    _, rows, places, colours = candidates(16, 20, edits)
    colours = colours.clamp(0, 1)
    got = access.recoloured(rows, places, colours)
    with torch.no_grad():
        truth, clean = model(painted(batch.images, rows, places, colours)), model(batch.images)
    allowed = torch.tensor([int((rows[:i] == r).sum()) < 4 for i, r in enumerate(rows)])
    assert torch.allclose(got, torch.where(allowed[:, None], truth, clean[rows]), atol=1e-5)
    assert access.ledger.forwards.tolist() == torch.bincount(rows, minlength=3).clamp_max(4).tolist()


def test_what_lies_on_the_boundary_is_asked_of_the_plain_forward(monkeypatch):
    model = load("vgg-slim", classes=("a", "b"), size=64)
    clean, rows, places, colours = candidates(64, 6, 1)
    access = ScoreAccess(model, untargeted(torch.zeros(3, dtype=torch.long)), clean)
    asked = []
    plain = access._plain
    monkeypatch.setattr(access, "_plain", lambda r, p, c: asked.append(len(r)) or plain(r, p, c))
    tie = torch.tensor([[1.0, 1.0 + 1e-6]]).repeat(6, 1)
    tie[0] = torch.tensor([1.0, 2.0])
    access._session = lambda *_: tie.clone()
    access.recoloured(rows, places, colours)
    assert asked == [5]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_stays_as_it_was_set(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = classifier("odd sizes")
        SparseForward(model)(*candidates(model.size, 40, 1))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
