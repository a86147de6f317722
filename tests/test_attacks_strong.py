"""The ensemble beside the strongest attacks there are, on models trained here; and ten thousand images in a stream."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from heatprint.attacks import attack, make
from heatprint.core.values import Batch
from heatprint.models import predict, wrap

EPS = 10 / 255


def gratings(count: int, classes: int, seed: int) -> Batch:
    """Noisy gratings of 20 px in as many orientations as there are classes."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    angle = labels * math.pi / classes + 0.35 * torch.randn(count, generator=rng) / classes
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    phase = 6.3 * torch.rand(count, 1, 1, generator=rng)
    wave = torch.sin(0.9 * (angle.cos().view(-1, 1, 1) * x + angle.sin().view(-1, 1, 1) * y) + phase)
    images = 0.5 + 0.1 * wave[:, None] + 0.12 * torch.randn(count, 3, 20, 20, generator=rng)
    return Batch.from_images(ids=[f"{seed}/{i}" for i in range(count)], images=images.clamp(0, 1), labels=labels)


def trained(classes: int, pool: bool):
    """A small network trained on gratings with noise, which leaves it neither helpless nor out of reach."""
    torch.manual_seed(classes)
    layers = [nn.Conv2d(3, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3), nn.ReLU()]
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1 if pool else 4), nn.Flatten(), nn.Linear(24 * (1 if pool else 16), classes)
    )
    data = gratings(1600, classes, seed=1)
    images, labels = data.images, data.labels
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(12):
        for rows in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(network(images[rows] - 0.5), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return wrap(network.eval(), classes=[f"c{k}" for k in range(classes)], size=20, mean=(0.5,) * 3)


ZOO = [(2, False), (2, True), (3, True), (4, False), (4, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "pool"), ZOO)
def test_the_ensemble_is_never_weaker_than_pgd_100_with_ten_restarts(classes, pool):
    model, batch = trained(classes, pool), gratings(200, classes, seed=2)
    assert (predict(model, batch.pixels).argmax(1) == batch.labels).float().mean() > 0.8
    pgd = attack(model, batch, make("pgd", eps=EPS, step=2 / 255, steps=100, restarts=10))
    strong = attack(model, batch, make("ensemble", eps=EPS))
    rate = pgd.success.sum() / pgd.attempted
    assert 0.02 < rate < 0.95, "the comparison says something"
    assert int(strong.success.sum()) >= int(pgd.success.sum())
    print(f"{classes} classes: ensemble {int(strong.success.sum())}, PGD {int(pgd.success.sum())} of {pgd.attempted}")


@pytest.mark.slow
def test_the_ensemble_stands_beside_autoattack_on_four_classes():
    torchattacks = pytest.importorskip("torchattacks")
    model, batch = trained(4, False), gratings(400, 4, seed=2)
    strong = attack(model, batch, make("ensemble", eps=EPS))
    right = ~strong.skipped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = torchattacks.AutoAttack(Module(model), norm="Linf", eps=EPS, version="standard", n_classes=4, seed=0)
        made = peer(batch.images[right], batch.labels[right])
    theirs = int((model(made.clamp(0, 1)).argmax(1) != batch.labels[right]).sum())
    ours = int(strong.success.sum())
    print(f"ensemble {ours}, AutoAttack {theirs} of {int(right.sum())}")
    assert (ours - theirs) / int(right.sum()) >= -0.005


class Module(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.network = model.network
        self.eval()

    def forward(self, x):
        return self.model(x)


STREAM = """
import resource, torch
torch.set_num_threads(2)
from heatprint.attacks import attack, make
from heatprint.core.values import Batch
from heatprint.models import load, predict
model = load("vgg-slim", classes=("a", "b"), size=112)
pixels = torch.randint(0, 256, (10_000, 3, 112, 112), dtype=torch.uint8)
labels = predict(model, pixels).argmax(1)
batch = Batch(ids=tuple(map(str, range(10_000))), pixels=pixels, labels=labels)
hit = attack(model, batch, make("fgsm", eps="2/255", ramp=False))
assert hit.attempted == 10_000 and int(hit.backwards.sum()) == 10_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_ten_thousand_images_stream_through_an_attack_in_bounded_memory():
    done = subprocess.run([sys.executable, "-c", STREAM], capture_output=True, text=True, check=True)
    gigabytes = float(done.stdout.split()[-1])
    print(f"{gigabytes:.2f} GiB")
    assert gigabytes < 3
