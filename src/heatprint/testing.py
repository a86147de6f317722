"""For the author of a method: checks of the contract its room expects, and models whose answers are known.

    from heatprint.testing import check_attack
    check_attack(MyAttack(eps=4 / 255))

Every check raises `BrokenContract` with what was expected and what came.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from heatprint.attacks import attack
from heatprint.attacks.ledger import Budget
from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract
from heatprint.core.lattice import whole_levels
from heatprint.core.protocols import Attack, Explainer
from heatprint.core.values import Attacked, Batch
from heatprint.explainers import explain
from heatprint.models import predict, wrap


class Linear(nn.Module):
    """Logits W x + b of the flattened image: its nearest adversarial is known in closed form."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.dense = nn.Linear(weight.shape[1], weight.shape[0])
        self.dense.weight.data, self.dense.bias.data = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        logits: Tensor = self.dense(x.flatten(1))
        return logits


def linear_classifier(*, size: int = 12, classes: int = 2, seed: int = 0, scale: float = 0.05) -> Classifier:
    """A random linear classifier of images [N, 3, size, size] in [0, 1], centred on grey."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((classes, 3 * size * size), generator=generator) * scale
    return wrap(Linear(weight, -weight.sum(1) / 2), classes=[f"class {i}" for i in range(classes)], size=size)


def small_classifier(*, size: int = 16, classes: int = 3, seed: int = 0) -> Classifier:
    """A random convolutional network with batch norm, a residual sum, both poolings and dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return wrap(Residual(classes), classes=[f"class {i}" for i in range(classes)], size=size, mean=(0.5,) * 3)


class Residual(nn.Module):
    """See `small_classifier`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        x = self.stem(x)
        logits: Tensor = self.head(torch.relu(self.body(x)) + x)
        return logits


def labelled_batch(classifier: Classifier, count: int = 8, *, seed: int = 0, wrong: int = 0) -> Batch:
    """Random mid-grey images labelled as the classifier sees them; the first `wrong` ones labelled otherwise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, classifier.size, classifier.size)
    pixels = torch.randint(64, 192, shape, generator=generator).to(torch.uint8)
    labels = predict(classifier, pixels).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % len(classifier.classes)
    return Batch(ids=tuple(f"image {i}" for i in range(count)), pixels=pixels, labels=labels)


def check_attack(method: Attack, classifier: Classifier | None = None) -> None:
    """Check what every attack must keep: caller's data and model untouched, budget, seeds, order, skipped images.

    Args:
        method: The attack.
        classifier: The victim; a small random network by default.

    Raises:
        BrokenContract: A promise that is not kept.
    """
    victim = classifier or small_classifier()
    batch = labelled_batch(victim, wrong=2)
    before, pixels = victim.fingerprint(), batch.pixels.clone()
    first = attack(victim, batch, method, seed=3)
    _require(victim.fingerprint() == before, method, "leaves the model bit-identical, without hooks and gradients")
    _require(torch.equal(batch.pixels, pixels), method, "writes nothing into the caller's images")
    _require(first.skipped[:2].all() and not first.skipped[2:].any(), method, "skips just the misclassified images")
    _require(torch.equal(first.adversarial.pixels[:2], pixels[:2]), method, "returns skipped images unchanged")
    _require(not first.forwards[:2].any(), method, "spends no query on skipped images")
    again = attack(victim, batch, method, seed=3)
    _require(torch.equal(first.adversarial.pixels, again.adversarial.pixels), method, "repeats itself with equal seeds")
    if method.taxonomy.scope == "image":
        order = torch.tensor([5, 7, 3, 2])
        alone = attack(victim, batch.take(order), method, seed=3)
        same = (alone.adversarial.pixels == first.adversarial.pixels[order]).flatten(1).float().mean()
        _require(same > 0.99, method, "gives an image the same result in another batch and order")
    _check_queries(method, victim, batch, first)
    _check_budget(method, first)


def _check_queries(method: Attack, victim: Classifier, batch: Batch, first: Attacked) -> None:
    """A hard budget holds, and whoever spent nothing changed nothing it would have had to learn."""
    limit = 5
    short = attack(victim, batch, method, seed=3, budget=Budget(forwards=limit))
    _require(int(short.forwards.max()) <= limit, method, f"stays within a budget of {limit} queries an image")
    spent = int(first.forwards.max())
    _require(int(first.first_hit.max()) <= spent, method, "reports a first success among the queries it made")
    if method.taxonomy.knowledge != "white box":
        _require(not first.backwards.any(), method, "asks for no gradient")
    _require(bool(first.adversarial.pixels[2:].ne(batch.pixels[2:]).any()), method, "keeps failed attempts")


def _check_budget(method: Attack, attacked: Attacked) -> None:
    eps = getattr(method, "eps", None)
    if eps is None:
        return
    norm = method.taxonomy.norm
    radius = whole_levels(eps) if norm == "linf" else eps
    _require(
        float(getattr(attacked.distance, norm).max()) <= radius + 1e-6, method, f"stays within {radius:g} in {norm}"
    )
    victim = small_classifier()
    batch = labelled_batch(victim)
    nothing = attack(victim, batch, replace(method, eps=0.0))  # type: ignore[type-var]
    _require(torch.equal(nothing.adversarial.pixels, batch.pixels), method, "changes nothing with eps = 0")


def check_explainer(method: Explainer, classifier: Classifier | None = None) -> None:
    """Check what every explainer must keep: shape, finiteness, batch independence, an untouched model.

    Raises:
        BrokenContract: A promise that is not kept.
    """
    model = classifier or small_classifier()
    # float64: some rules divide by sums near 0, where float32 rounding alone would tell batches apart
    model = replace(model, network=copy.deepcopy(model.network).double())
    batch = labelled_batch(model)
    before = model.fingerprint()
    together = explain(model, batch, method)
    _require(model.fingerprint() == before, method, "leaves the model bit-identical, without hooks and gradients")
    _require(together.relevance.shape == batch.pixels.shape, method, "attributes to every input")
    _require(torch.equal(together.target, batch.labels), method, "explains the predicted class by default")
    one = explain(model, batch.take([5]), method).relevance[0]
    scale = together.relevance[5].abs().amax().clamp_min(1e-12)
    _require(bool(((one - together.relevance[5]).abs() / scale < 1e-6).all()), method, "explains each image by itself")
    other = explain(model, batch, method, target=(batch.labels + 1) % len(model.classes))
    _require(not torch.equal(other.relevance, together.relevance), method, "depends on the class explained")


def _require(kept: bool | Tensor, method: object, promise: str) -> None:
    if not kept:
        raise BrokenContract(f"{type(method).__name__} must be a method that {promise}; this one is not.")
