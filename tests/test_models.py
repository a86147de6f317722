"""Wrapping, folding, training, saving."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from heatprint.core.errors import InvalidInput, ModelMismatch, UnknownName, UnreadableData
from heatprint.data.sources import draw_batch
from heatprint.models import Training, build, load, predict, save, train, wrap
from heatprint.models.augment import Augmentation, augmented
from heatprint.models.train import PAPER, learning_rate
from heatprint.testing import labelled_batch

TINY = Training(stages=((2, 32), (1, 48)), batch=8, lr=1e-3)


class Head(nn.Module):
    def __init__(self, outputs, *after):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(outputs), *after)
        self.layers(torch.zeros(1, 3, 16, 16))

    def forward(self, x):
        return self.layers(x)


def test_wrapping_copies_and_never_touches_the_callers_network():
    raw = Head(2).train()
    state = {k: v.clone() for k, v in raw.state_dict().items()}
    classifier = wrap(raw, classes=("a", "b"), size=16)
    assert raw.training
    assert all(p.requires_grad for p in raw.parameters())
    assert all(torch.equal(v, raw.state_dict()[k]) for k, v in state.items())
    assert not any(p.requires_grad for p in classifier.network.parameters())
    assert not any(m.training for m in classifier.network.modules())


def test_normalisation_is_inside():
    raw = Head(2).eval()
    classifier = wrap(raw, classes=("a", "b"), size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    x = torch.rand(2, 3, 16, 16)
    by_hand = raw((x - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1))
    assert torch.allclose(classifier(x), by_hand, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "classes", "told"),
    [
        (Head(2, nn.Softmax(1)), "ab", "without its last softmax"),
        (Head(1, nn.Sigmoid()), "ab", "ends in a sigmoid"),
        (Head(3), "ab", "3 values for 2 classes"),
        (Head(2), "aa", "two or more different names"),
        (nn.Conv2d(3, 2, 3), "ab", r"must return logits \[N, K\]"),
    ],
)
def test_usual_mistakes_are_refused_with_the_fix(network, classes, told):
    with pytest.raises((InvalidInput, ModelMismatch), match=told):
        wrap(network, classes=classes, size=16)


def test_statistics_for_255_pixels_and_wrong_sizes_are_refused():
    with pytest.raises(InvalidInput, match="Divide values meant for"):
        wrap(Head(2), classes="ab", size=16, mean=(123.0, 117.0, 104.0))
    with pytest.raises(ModelMismatch, match="Name its input size"):
        wrap(Head(2), classes="ab", size=20)


def test_a_sigmoid_head_becomes_two_logits_with_equal_probabilities():
    raw = Head(1).eval()
    classifier = wrap(raw, classes="ab", size=16)
    x = torch.rand(5, 3, 16, 16)
    assert torch.allclose(classifier(x).softmax(1)[:, 1], torch.sigmoid(raw(x)[:, 0]), atol=1e-6)


@pytest.mark.parametrize("architecture", ["vgg-slim", "torchvision:resnet18"])
def test_folding_batch_norm_keeps_the_function(architecture):
    raw = build(architecture, classes=3, size=64, seed=1)
    for module in raw.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    classifier = wrap(raw, classes="abc", size=64)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in classifier.network.modules())
    x = torch.rand(3, 3, 64, 64)
    assert torch.allclose(classifier(x), raw.eval()(x), rtol=1e-3, atol=1e-4)


def test_architectures_have_the_paper_s_shape():
    paper = build("vgg16-paper", classes=2, size=112)
    kernels = [m for m in paper.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [m.out_channels for m in kernels[:13]] == [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert [(m.in_features, m.out_features) for m in kernels[13:]] == [(3 * 3 * 512, 4096), (4096, 4096), (4096, 2)]
    slim = build("vgg-slim", classes=2, size=112)
    assert sum(isinstance(m, nn.Conv2d) for m in slim.modules()) == 13
    assert sum(p.numel() for p in slim.parameters()) < 330_000
    with pytest.raises(UnknownName, match="Did you mean 'vgg-slim'"):
        build("vgg-slimm", classes=2, size=112)
    with pytest.raises(UnknownName, match="resnet18"):
        build("torchvision:resnet81", classes=2, size=112)


def test_fresh_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = load("vgg-slim", classes="ab", size=64, seed=3)
    torch.manual_seed(2)
    assert one.digest == load("vgg-slim", classes="ab", size=64, seed=3).digest
    assert one.digest != load("vgg-slim", classes="ab", size=64, seed=4).digest


def test_learning_rates_in_closed_form():
    keras = [learning_rate(PAPER, s, 10_000) for s in (0, 1, 5000)]
    assert keras == [1e-3, 1e-3 / (1 + 1e-6), 1e-3 / (1 + 5e-3)]
    cycle = Training(lr=1.0, warm_up=0.1)
    rates = [learning_rate(cycle, s, 100) for s in range(100)]
    assert rates[9] == max(rates) == 1.0
    assert rates[0] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_sgd_with_keras_decay_takes_the_steps_written_down():
    """One epoch of one batch by hand: w <- w - lr * gradient, momentum and Nesterov included in the first step."""
    batch = labelled_batch(wrap(Head(2), classes="ab", size=16), 8)
    start = wrap(Head(2), classes="ab", size=16)
    recipe = replace(PAPER, batch=8, stages=((1, 16),), lr=0.1)
    trained, _ = train(start, batch, recipe, seed=0)
    net = Head(2)
    loss = nn.functional.cross_entropy(net(batch.images), batch.labels)
    loss.backward()
    for (name, p), new in zip(net.named_parameters(), trained.trainable.parameters(), strict=True):
        assert torch.allclose(p - 0.1 * 1.9 * p.grad, new, atol=1e-5), name  # nesterov: g + 0.9 g


def small_task():
    data = draw_batch(24, "training_set", size=48, seed=0)
    return load("vgg-slim", classes=("cats", "dogs"), size=48, seed=0), data


class Killed(Exception):
    pass


def test_a_killed_training_resumes_to_bit_identical_weights(tmp_path):
    start, data = small_task()
    whole, history = train(start, data, TINY, seed=1)
    file = tmp_path / "unfinished.safetensors"

    def killer(done, total, note=""):
        if note == "epoch 3/3":
            raise Killed

    with pytest.raises(Killed):
        train(start, data, TINY, seed=1, checkpoint=file, progress=killer)
    resumed, again = train(start, data, TINY, seed=1, checkpoint=file)
    assert resumed.digest == whole.digest
    assert again == history
    file.write_bytes(file.read_bytes()[:1000])
    assert train(start, data, TINY, seed=1, checkpoint=file)[0].digest == whole.digest
    assert train(start, data, TINY, seed=2, checkpoint=file)[0].digest != whole.digest


def test_training_learns_and_leaves_its_start_alone():
    start, data = small_task()
    before = start.digest
    trained, history = train(start, data, replace(TINY, stages=((12, 48),), lr=2e-3, augmentation=Augmentation(
        crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), jitter=0.0)))  # fmt: skip
    assert start.digest == before
    assert history[-1].loss < 0.7 * history[0].loss
    assert (predict(trained, data.pixels).argmax(1) == data.labels).float().mean() > 0.8


def test_augmentation_off_is_the_identity_and_flips_are_mirrors():
    import numpy as np

    images = torch.rand(16, 3, 10, 10)
    off = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, jitter=0.0)
    assert torch.equal(augmented(images, 10, off, np.random.default_rng(0)), images)
    flipped = augmented(images, 10, replace(off, flip=True), np.random.default_rng(0))
    straight = [(torch.allclose(f, i, atol=1e-5), torch.allclose(f, i.flip(2), atol=1e-5)) for f, i in
                zip(flipped, images, strict=True)]  # fmt: skip
    assert all(a != b for a, b in straight)
    assert 2 < sum(b for _, b in straight) < 14
    cropped = augmented(images, 6, Augmentation(), np.random.default_rng(0))
    assert cropped.shape == (16, 3, 6, 6)
    assert 0 <= cropped.min() <= cropped.max() <= 1


def test_save_and_load_round_trip(tmp_path):
    start, data = small_task()
    save(start, tmp_path / "m", notes={"a": 1})
    again = load(tmp_path / "m")
    assert again.digest == start.digest
    assert (again.classes, again.size, again.mean, again.name) == (start.classes, start.size, start.mean, start.name)
    assert torch.equal(predict(again, data.pixels), predict(start, data.pixels))
    with pytest.raises(InvalidInput, match="network of your own"):
        save(wrap(Head(2), classes="ab", size=16), tmp_path / "n")


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

    def forward(self, x):
        x = self.one(x)
        return self.last(x.view(x.size(0), -1))


def test_a_network_that_views_its_maps_is_taken():
    network = Viewing()
    images = torch.rand(3, 3, 8, 8)
    model = wrap(network, classes=("a", "b"), size=8)
    assert torch.allclose(model(images), network(images), atol=1e-6)


class Normalising(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.25))

    def forward(self, x):
        return (x - self.mean) / self.std


@pytest.mark.parametrize("layer", [Normalising(), torchvision.transforms.Normalize([0.5] * 3, [0.25] * 3)])
def test_normalising_twice_is_recognised(layer):
    network = torch.nn.Sequential(layer, torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2))
    with pytest.raises(InvalidInput, match="normalise it twice"):
        wrap(network, classes=("a", "b"), size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    wrap(network, classes=("a", "b"), size=8)


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    start, _ = small_task()
    save(start, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-7])
    with pytest.raises(UnreadableData, match="cannot be read as weights"):
        load(tmp_path / "m")
    weights.write_bytes(content[:-4] + b"\0\0\0\x40")
    with pytest.raises(UnreadableData, match="not what its card describes"):
        load(tmp_path / "m")
    weights.write_bytes(content)
    with pytest.raises(ModelMismatch, match=r"does not fit.*network \[3, 128\]"):
        load("vgg-slim", classes="abc", size=48, weights=weights)
    with pytest.raises(UnreadableData, match="no file"):
        load("vgg-slim", classes="ab", weights=tmp_path / "nothing.pt")
    with pytest.raises(UnreadableData, match=r"written by models\.save"):
        load(tmp_path)
    (tmp_path / "m" / "card.json").write_text("{")
    with pytest.raises(UnreadableData, match="is damaged"):
        load(tmp_path / "m")


class Evil:
    def __reduce__(self):
        return (print, ("code from a checkpoint ran",))


def test_pickles_run_no_code(tmp_path, capsys):
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    network = build("vgg-slim", classes=2, size=48, seed=9)
    torch.save({"state_dict": network.state_dict()}, good)
    assert (
        load("vgg-slim", classes="ab", size=48, weights=good).digest
        == load("vgg-slim", classes="ab", size=48, seed=9).digest
    )
    torch.save({"weights": Evil()}, bad)
    with pytest.raises(UnreadableData, match="whole pickled models are refused"):
        load("vgg-slim", classes="ab", size=48, weights=bad)
    bad.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UnreadableData):
        load("vgg-slim", classes="ab", size=48, weights=bad)
    assert "code from a checkpoint" not in capsys.readouterr().out
