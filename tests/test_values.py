"""The values that flow between the rooms: what they promise by their form, and what they refuse at its edge."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from heatprint.attacks import ATTACKS
from heatprint.attacks.ledger import Budget
from heatprint.core import classifier as classifiers
from heatprint.core import goals, norms, streams, values
from heatprint.core.classifier import Classifier
from heatprint.core.digest import content_digest, digest, file_digest
from heatprint.core.errors import InvalidInput, MissingExtra, UnknownName
from heatprint.core.goals import FLIP, Criterion, Goal, targeted, untargeted
from heatprint.core.lattice import (
    check_level,
    decode_pngs,
    encode_pngs,
    parse_level,
    to_images,
    to_pixels,
    whole_levels,
)
from heatprint.core.norms import CHUNK, distances, length, project
from heatprint.core.registry import Registry, validated
from heatprint.core.streams import Streams, stream, torch_seed
from heatprint.core.values import Batch, Explained, PlanLine, Taxonomy, join
from heatprint.defences import DEFENCES
from heatprint.detectors import DETECTORS
from heatprint.explainers import EXPLAINERS
from heatprint.signatures import CLUSTERERS, EMBEDDERS, SIGNERS

ROOMS = (ATTACKS, EXPLAINERS, SIGNERS, EMBEDDERS, CLUSTERERS, DETECTORS, DEFENCES)
METHODS = [(room, name) for room in ROOMS for name in room.names()]
VALUES = [
    kind
    for module in (values, classifiers, goals, norms, streams)
    for kind in vars(module).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
]


def grey(count=2, size=4, level=100):
    pixels = torch.full((count, 3, size, size), level, dtype=torch.uint8)
    return Batch(ids=tuple(f"{i}" for i in range(count)), pixels=pixels, labels=torch.zeros(count, dtype=torch.long))


# Their form


@pytest.mark.parametrize("kind", [*VALUES, Budget], ids=lambda kind: kind.__name__)
def test_values_are_frozen_and_name_their_parts(kind):
    """What two rooms share, neither can change behind the other's back; and nobody depends on an order of fields."""
    assert kind.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind) if field.init)
    with pytest.raises(TypeError, match="positional"):
        kind(*[None] * len(dataclasses.fields(kind)))


def test_values_of_tensors_are_equal_only_to_themselves_and_may_be_kept_in_a_set():
    """Comparing tensors gives tensors, so comparing by fields would be an error in the middle of somebody's list."""
    by_fields = {kind.__name__ for kind in VALUES if kind.__dataclass_params__.eq}
    assert by_fields == {"Taxonomy", "PlanLine", "Criterion", "Distances", "Streams"}
    one, other = grey(), grey()
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2


@pytest.mark.parametrize(("room", "name"), METHODS, ids=lambda part: part if isinstance(part, str) else part.room)
def test_methods_are_frozen_and_their_settings_are_named(room, name):
    """A method's settings are part of the key of its results: changed afterwards they would lie."""
    kind = room.load(name)
    assert kind.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind) if field.init)


# Digests


def test_a_digest_is_the_same_today_as_when_a_run_was_begun():
    """Another spelling would make every finished part of every run folder be computed again."""
    told = digest(1, 0.5, "a", None, True, b"\x00", (1, [2]), {"b": 1, "a": np.arange(3, dtype=np.int16)}, Criterion())
    assert told == "1c11773ca83f39f212a7aef80463c5ff910f2bed"
    assert len(told) == 40


def test_a_digest_sees_values_not_how_they_lie_in_memory(tmp_path):
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert digest(square) == digest(np.asfortranarray(square)) == digest(torch.from_numpy(square))
    assert digest(square) == digest(torch.from_numpy(square).clone().requires_grad_())
    assert digest(square) != digest(square.reshape(4, 3))
    assert digest(square) != digest(square.astype(np.float64))
    assert digest(np.zeros((0, 3))) != digest(np.zeros((0, 4)))
    assert digest(np.float32(1)) == digest(np.float32(1)) != digest(np.float32(2))
    assert digest(tmp_path / "a") == digest(str(tmp_path / "a"))
    assert digest([1, 2]) == digest((1, 2)) != digest((2, 1))
    assert digest("ab", "c") != digest("a", "bc")
    assert digest({1: "a", "1": "b"}) == digest({"1": "b", 1: "a"}) != digest({1: "b", "1": "a"})
    with pytest.raises(InvalidInput, match="type"):
        digest(Criterion)  # the class itself is no value


def test_a_file_has_the_digest_of_its_content_however_long(tmp_path):
    """Longer than what is read at a time, and told apart by its last byte as by its first."""
    content = np.random.default_rng(0).bytes((1 << 20) + 5)
    path = tmp_path / "file"
    path.write_bytes(content)
    assert file_digest(path) == content_digest(content)
    assert (
        len({content_digest(content), content_digest(content[:-1]), content_digest(content[1:]), digest(content)}) == 4
    )
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert file_digest(path) != content_digest(content)


# Errors


def test_an_unknown_name_tells_the_nearest_and_all_others_in_order():
    error = UnknownName("attacks: the name", "fgms", ["pgd", "fgsm"])
    assert str(error) == "attacks: the name 'fgms' is not known. Did you mean 'fgsm'? Known: fgsm, pgd."
    assert str(UnknownName("x", "zzz", ["pgd"])) == "x 'zzz' is not known. Known: pgd."
    assert str(UnknownName("x", "zzz", [])) == "x 'zzz' is not known. Known: none."


@pytest.mark.parametrize(
    "error", [UnknownName("x", "a", ["b"]), MissingExtra("shap", "explain", "It"), InvalidInput("no")]
)
def test_errors_travel_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert "heatprint[explain]" in str(again) or not isinstance(again, MissingExtra)


# Goals


@pytest.mark.parametrize(
    "settings", [{"margin": -1e-9}, {"margin": math.nan}, {"probability": 1.0}, {"probability": -0.1}]
)
def test_criteria_that_nothing_meets_are_refused(settings):
    with pytest.raises(InvalidInput, match="0 or more"):
        Criterion(**settings)
    assert Criterion(margin=0.0, probability=0.0) == FLIP == untargeted(torch.tensor([0])).criterion


@pytest.mark.parametrize("aim", [False, True])
def test_a_goal_is_reached_where_the_slow_definition_says_so(aim):
    logits = torch.randn((300, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    labels = torch.arange(300) % 4
    for criterion in (FLIP, Criterion(margin=1.0), Criterion(probability=0.7), Criterion(margin=2.0, probability=0.6)):
        goal = Goal(labels=labels, targeted=aim, criterion=criterion)
        reached, margins, chances = goal.reached(logits), goal.margin(logits), goal.log_probability(logits).exp()
        for row, (z, k) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True)):
            best = max(z[j] for j in range(4) if j != k)
            margin = z[k] - best if aim else best - z[k]
            chance = math.exp(z[k]) / sum(map(math.exp, z))
            chance = chance if aim else 1 - chance
            assert margins[row].item() == pytest.approx(margin)
            assert chances[row].item() == pytest.approx(chance)
            sure = margin >= criterion.margin and chance >= criterion.probability
            assert reached[row].item() == (margin > 0 and sure)
        assert 0 < int(reached.sum()) < 300


def test_a_criterion_counts_what_meets_it_exactly_and_a_tie_is_no_flip():
    logits = torch.tensor([[0.0, 2.0], [2.0, 0.0], [1.0, 1.0]])
    one, two = torch.tensor([1, 1, 1]), Criterion(margin=2.0)
    assert Goal(labels=one, targeted=True, criterion=two).reached(logits).tolist() == [True, False, False]
    assert untargeted(one, two).reached(logits).tolist() == [False, True, False]
    assert untargeted(torch.zeros(3, dtype=torch.long)).reached(logits).tolist() == [True, False, False]
    even = Criterion(probability=math.exp(-1e-6) / 2)
    assert Goal(labels=one, targeted=True, criterion=even).reached(logits).tolist() == [True, False, False]


def test_rows_of_a_goal_keep_what_it_is_after():
    goal = Goal(labels=torch.tensor([3, 1, 2]), targeted=True, criterion=Criterion(margin=1.0))
    for other in (goal.take(torch.tensor([2, 0])), goal.take(torch.tensor([2, 0])).to(torch.device("cpu"))):
        assert other.labels.tolist() == [2, 3]
        assert other.targeted
        assert other.criterion.margin == 1
    aimed = targeted(torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert aimed.targeted
    assert aimed.labels.tolist() == [1, 0]
    with pytest.raises(InvalidInput, match="is its true class 1"):
        targeted(torch.tensor([0, 1]), torch.tensor([1, 1]))


# The lattice


@pytest.mark.parametrize("text", ["8/0", "a/255", "/255", "8/"])
def test_what_is_no_fraction_is_no_level(text):
    with pytest.raises(InvalidInput, match=r"Write a fraction such as '8/255'"):
        parse_level(text)


def test_levels_lie_in_the_unit_interval_its_ends_included():
    assert parse_level("0.5") == "0.5"  # left to the type check
    check_level("x", 0.0)
    check_level("x", 1.0)
    for value in (-1e-9, 1 + 1e-9, 8, math.nan):
        with pytest.raises(InvalidInput, match="x = "):
            check_level("x", value)
    with pytest.raises(InvalidInput, match="without quotes"):
        check_level("x", "0.5")


def test_a_distance_holds_the_levels_that_fit_into_it_despite_rounding():
    for level in range(256):
        assert whole_levels(level / 255) == level
        assert whole_levels(float(np.float32(level / 255))) == level
        if level:
            assert whole_levels((level - 0.01) / 255) == level - 1


def test_numbers_become_the_nearest_byte():
    every = torch.arange(256).to(torch.uint8)
    assert to_images(every).dtype == torch.float32
    assert torch.equal(to_images(every), torch.arange(256) / 255)
    for off in (-0.49, 0.49):
        assert torch.equal(to_pixels((torch.arange(256).double() + off) / 255), every)
    assert to_pixels(torch.tensor([-0.1, 1.1])).tolist() == [0, 255]


def test_many_images_are_packed_as_one_by_one():
    pixels = torch.randint(0, 256, (5, 3, 6, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(decode_pngs(encode_pngs(pixels), pixels), pixels)
    assert decode_pngs([], pixels).shape == (0, 3, 6, 4)
    assert decode_pngs([], pixels).dtype == torch.uint8


# Norms


def test_distances_of_many_images_are_those_of_each():
    generator = torch.Generator().manual_seed(0)
    clean, changed = torch.randint(0, 256, (2, CHUNK + 3, 3, 3, 2), generator=generator).to(torch.uint8)
    changed[5] = clean[5]
    told = distances(clean, changed)
    delta = (changed.double() - clean.double()) / 255
    assert torch.allclose(told.l1, delta.abs().sum((1, 2, 3)))
    assert torch.allclose(told.l2, delta.square().sum((1, 2, 3)).sqrt())
    assert torch.equal(told.linf, (delta * 255).abs().amax((1, 2, 3)).round().long())
    assert torch.equal(told.l0, delta.ne(0).any(1).sum((1, 2)))
    assert (told.l0.dtype, told.linf.dtype) == (torch.int64, torch.int64)
    assert told.l0[5] == told.linf[5] == told.l1[5] == told.l2[5] == 0


def test_lengths_are_the_norms_and_a_pixel_counts_once():
    delta = torch.zeros((2, 3, 2, 2), dtype=torch.float64)
    delta[0, :, 0, 0], delta[0, 1, 1, 1] = torch.tensor([3.0, 0, -4]).double(), 12.0
    assert length(delta, "l0").tolist() == [2, 0]
    assert length(delta, "l1").tolist() == [19, 0]
    assert length(delta, "l2").tolist() == [13, 0]
    assert length(delta, "linf").tolist() == [12, 0]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_projection_is_the_nearest_point_of_the_ball(norm):
    """No point of the ball is nearer than it, in any direction: (x - p) . (y - p) <= 0 (projection theorem)."""
    rng = np.random.default_rng(0)
    delta = torch.from_numpy(rng.normal(size=(20, 3, 2, 2)))
    radii = torch.from_numpy(rng.uniform(0.1, 3, 20))
    near = project(delta, norm, radii)
    assert torch.allclose(length(near, norm).minimum(radii), length(near, norm))
    outside = length(delta, norm) > radii
    assert outside.any()
    assert torch.allclose(length(near, norm)[outside], radii[outside])
    assert torch.equal(near[~outside], delta[~outside])
    for _ in range(200):
        other = torch.from_numpy(rng.normal(size=delta.shape) * rng.choice([0, 1], size=delta.shape, p=[0.7, 0.3]))
        other = other / length(other, norm).clamp_min(1e-9).view(-1, 1, 1, 1) * radii.view(-1, 1, 1, 1)
        assert (((delta - near) * (other - near)).flatten(1).sum(1) <= 1e-9).all()
    assert not project(delta, norm, 0.0).any()
    assert not project(torch.zeros_like(delta), norm, radii).any()


# Streams


def test_streams_draw_the_same_on_every_machine_and_do_not_run_into_each_other():
    assert stream(0, "golden", 1).integers(1000, size=4).tolist() == [334, 91, 596, 468]
    assert torch_seed(0, "golden") == 8383499544967962104
    assert torch_seed(0, "golden") != torch_seed(0, "golden", 1) != torch_seed(1, "golden", 1)
    assert 0 <= torch_seed(3) < 2**63
    assert max(torch_seed(0, i) for i in range(64)) > 2**62
    assert stream(1, "a", "b").random() != stream(1, "ab").random(), "words are kept apart"
    long = stream(0, "x").random(10_000)
    assert not np.isin(stream(0, "x", counter=1).random(100), long).any()
    first = Streams(seed=0, purpose="p", ids=("a",))
    assert first.of(0).random() == stream(0, "p", "a", counter=0).random()


# Registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = Inner()
    made: int = dataclasses.field(default=0, init=False)
    eps: float = 0.5


def test_nested_settings_are_checked_by_name_and_type():
    assert validated("x", Outer, {"inner": {"depth": 3}}) == Outer(inner=Inner(depth=3))
    with pytest.raises(UnknownName, match=r"x\.inner: the setting 'dept' is not known\. Did you mean 'depth'"):
        validated("x", Outer, {"inner": {"dept": 3}})
    with pytest.raises(UnknownName, match=r"the setting 'made' is not known\. Known: eps, inner"):
        validated("x", Outer, {"made": 3})
    with pytest.raises(InvalidInput, match=r"x: inner\.depth = 'deep': .*; eps = 'many': "):
        validated("x", Outer, {"inner": {"depth": "deep"}, "eps": "many"})


def test_a_package_cannot_take_a_name_that_is_ours(monkeypatch):
    class Point:
        name, value = "ours", "elsewhere:Thing"

    monkeypatch.setattr("heatprint.core.registry.entry_points", lambda group: [Point])
    with pytest.raises(InvalidInput, match=r"room: an installed package registers 'ours' \(elsewhere:Thing\)"):
        Registry("room", {"ours": "heatprint.attacks.noise:Noise"}).names()


# Batches


def test_batches_refuse_what_does_not_belong_together():
    labels, pixels = torch.zeros(2, dtype=torch.long), torch.zeros((2, 3, 4, 4), dtype=torch.uint8)
    for wrong in (pixels[:1], pixels[:, :2], pixels[0], pixels.float()):
        with pytest.raises(InvalidInput, match="Batch: "):
            Batch(ids=("a", "b"), pixels=wrong, labels=labels)
    for wrong in (labels[:1], labels[:, None]):
        with pytest.raises(InvalidInput, match="do not belong together"):
            Batch(ids=("a", "b"), pixels=pixels, labels=wrong)
    with pytest.raises(InvalidInput, match="do not belong together"):
        Batch(ids=("a",), pixels=pixels, labels=labels)


def test_floats_are_taken_up_to_the_rounding_of_their_ends():
    images = torch.zeros((1, 3, 2, 2), dtype=torch.float64)
    for low, high in ((-5e-7, 1 + 5e-7), (0.0, 1.0)):
        images[0, 0, 0] = torch.tensor([low, high]).double()
        assert Batch.from_images(ids=["a"], images=images, labels=torch.tensor([0])).pixels[0, 0, 0].tolist() == [
            0,
            255,
        ]
    for value in (-1e-4, 1 + 1e-4):
        images[0, 0, 0, 0] = value
        with pytest.raises(InvalidInput, match=r"must be in \[0, 1\]"):
            Batch.from_images(ids=["a"], images=images, labels=torch.tensor([0]))


def test_rows_of_a_batch_are_its_own_in_the_order_asked_for():
    batch = grey(3).with_pixels(torch.arange(3 * 48).to(torch.uint8).view(3, 3, 4, 4))
    some = batch.take([2, 0])
    assert some.ids == ("2", "0")
    assert torch.equal(some.pixels, batch.pixels[[2, 0]])
    assert batch.take([0, 1, 2]) is batch
    assert batch.take([0, 1]) is not batch
    assert len(batch.take([])) == 0
    both = join([some, batch.take([1])])
    assert both.ids == ("2", "0", "1")
    assert torch.equal(both.images, batch.images[[2, 0, 1]])


def test_what_a_finding_leaves_open_is_empty_and_its_heat_is_the_sum_over_channels():
    relevance = torch.randn((2, 3, 4, 4))
    seen = Explained(ids=("a", "b"), relevance=relevance, target=torch.zeros(2).long(), score=torch.zeros(2))
    assert torch.allclose(seen.heat, relevance[:, 0] + relevance[:, 1] + relevance[:, 2])
    assert seen.against is None
    assert (seen.plan, dict(seen.totals), dict(seen.passed), dict(seen.facts)) == ((), {}, {}, {})
    assert PlanLine(layer="a", operator="conv", rule="flat").epsilon is None
    told = Taxonomy(knowledge="score", specificity="untargeted", frequency="iterative", norm="l0", paper="")
    assert told.scope == "image"


# Classifiers


def coloured(**settings):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    weight = torch.arange(24, dtype=torch.float32).view(2, 12) / 10
    network[1].load_state_dict({"weight": weight, "bias": torch.tensor([1.0, -1.0])})
    network.eval().requires_grad_(False)
    return Classifier(network=network, trainable=network, classes=("a", "b"), size=2, name="c", **settings)


def test_a_classifier_normalises_each_channel_by_its_own_mean_and_deviation():
    images = torch.rand((4, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    plain = coloured()
    assert torch.equal(plain.normalise(images), images)
    assert torch.allclose(plain(images), plain.network(images))
    for mean, std in (
        ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0)),
        ((0.0, 0.0, 0.0), (0.5, 2.0, 4.0)),
        ((0.4, 0.0, 0.1), (2.0, 1.0, 0.3)),
    ):
        shifted = coloured(mean=mean, std=std)
        expected = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], 1)
        assert torch.allclose(shifted.normalise(images), expected)
        assert torch.allclose(shifted(images), plain.network(expected))


def test_logits_of_a_network_in_half_precision_are_float32_and_of_a_double_one_double():
    images = torch.rand((1, 3, 2, 2))
    for dtype, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ):
        model = coloured(mean=(0.5, 0.5, 0.5))
        model.network.to(dtype)
        assert model.normalise(images).dtype == model.dtype == dtype
        assert model(images).dtype == expected


def test_a_network_without_weights_lies_where_images_do():
    model = dataclasses.replace(coloured(), network=nn.Flatten())
    assert model.dtype == torch.float32
    assert model.device == torch.device("cpu")
    assert model.to("cpu") is model
    assert model.named("other").name == "other"
    assert model.named("other").network is model.network


def test_the_digest_of_a_classifier_is_that_of_its_function_not_of_its_name():
    told = coloured().digest
    assert told == coloured().named("other").digest
    weighed = coloured()
    weighed.trainable[1].bias[0] += 1
    others = [coloured(mean=(0.1, 0.0, 0.0)), coloured(std=(1.0, 1.0, 2.0)), coloured(architecture="vgg"), weighed,
              dataclasses.replace(coloured(), classes=("b", "a")), dataclasses.replace(coloured(), size=3)]  # fmt: skip
    assert len({told, *(other.digest for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    "touch",
    [
        lambda network: network[1].bias.add_(1),
        lambda network: network.train(),
        lambda network: network[1].register_forward_hook(lambda *_: None),
        lambda network: network[1].register_full_backward_hook(lambda *_: None),
        lambda network: network.requires_grad_(True),
        lambda network: setattr(network[1].bias, "grad", torch.zeros(2)),
    ],
    ids=["weight", "mode", "hook", "backward hook", "flag", "gradient"],
)
def test_a_fingerprint_sees_every_trace_left_in_a_network(touch):
    model = coloured()
    before = model.fingerprint()
    assert before == coloured().fingerprint()
    touch(model.network)
    assert model.fingerprint() != before
