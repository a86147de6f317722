"""The contracts of attacks, explainers, signers, embedders, clusterers and detectors."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from functools import partial

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from heatprint import detectors
from heatprint.attacks import attack
from heatprint.attacks.ledger import Budget
from heatprint.core.classifier import Classifier
from heatprint.core.lattice import whole_levels
from heatprint.core.protocols import Attack, Embedder, Explainer, Signer
from heatprint.core.streams import stream
from heatprint.core.values import Attacked, Batch, join
from heatprint.detectors.door import Method
from heatprint.explainers import explain
from heatprint.signatures import Clusterer, Strategies, cluster, embed, sign
from heatprint.signatures.neighbours import nearest
from heatprint.testing.promises import answer, require
from heatprint.testing.victims import labelled_batch, small_classifier, two_strategies


def check_attack(method: Attack, classifier: Classifier | None = None) -> None:
    """Check what every attack must keep: caller's data and model untouched, budget, seeds, order, skipped images.

    Args:
        method: The attack.
        classifier: The victim; a small random network by default.

    Raises:
        BrokenContract: A promise that is not kept.
    """
    victim = _doubled(classifier or small_classifier())
    batch = labelled_batch(victim, wrong=2)
    before, pixels = victim.fingerprint(), batch.pixels.clone()
    first = attack(victim, batch, method, seed=3)
    require(victim.fingerprint() == before, method, "leaves the model bit-identical, without hooks and gradients")
    require(torch.equal(batch.pixels, pixels), method, "writes nothing into the caller's images")
    require(first.skipped[:2].all() and not first.skipped[2:].any(), method, "skips just the misclassified images")
    require(torch.equal(first.adversarial.pixels[:2], pixels[:2]), method, "returns skipped images unchanged")
    require(not first.forwards[:2].any(), method, "spends no query on skipped images")
    again = attack(victim, batch, method, seed=3)
    require(torch.equal(first.adversarial.pixels, again.adversarial.pixels), method, "repeats itself with equal seeds")
    if method.taxonomy.scope == "image":
        order = torch.tensor([5, 7, 3, 2])
        alone = attack(victim, batch.take(order), method, seed=3)
        same = (alone.adversarial.pixels == first.adversarial.pixels[order]).flatten(1).float().mean()
        own = [getattr(one.distance, method.taxonomy.norm).double() for one in (alone, first)]
        near = bool(((own[0] - own[1][order]).abs() <= 0.05 * own[1][order]).all())
        # the last bit of a sum depends on the batch, on some processors more than on others: a search may part there
        kept = bool(same > 0.99) or (bool(same > 0.5) and near)
        require(kept, method, "gives an image the same result in another batch and order")
    _check_queries(method, victim, batch, first)
    _check_budget(method, first)


def _check_queries(method: Attack, victim: Classifier, batch: Batch, first: Attacked) -> None:
    """A hard budget holds, and whoever spent nothing changed nothing it would have had to learn."""
    limit = 5
    short = attack(victim, batch, method, seed=3, budget=Budget(forwards=limit))
    require(int(short.forwards.max()) <= limit, method, f"stays within a budget of {limit} queries an image")
    spent = int(first.forwards.max())
    require(int(first.first_hit.max()) <= spent, method, "reports a first success among the queries it made")
    if method.taxonomy.knowledge != "white box":
        require(not first.backwards.any(), method, "asks for no gradient")
    require(bool(first.adversarial.pixels[2:].ne(batch.pixels[2:]).any()), method, "keeps failed attempts")


def _check_budget(method: Attack, attacked: Attacked) -> None:
    eps = getattr(method, "eps", None)
    if eps is None:
        return
    norm = method.taxonomy.norm
    radius = whole_levels(eps) if norm == "linf" else eps
    require(
        float(getattr(attacked.distance, norm).max()) <= radius + 1e-6, method, f"stays within {radius:g} in {norm}"
    )
    victim = small_classifier()
    batch = labelled_batch(victim)
    nothing = attack(victim, batch, replace(method, eps=0.0))  # type: ignore[type-var]
    require(torch.equal(nothing.adversarial.pixels, batch.pixels), method, "changes nothing with eps = 0")


def check_explainer(method: Explainer, classifier: Classifier | None = None) -> None:
    """Check what every explainer must keep: shape, finiteness, batch independence, an untouched model.

    Raises:
        BrokenContract: A promise that is not kept.
    """
    model = _doubled(classifier or small_classifier())
    batch = labelled_batch(model)
    before = model.fingerprint()
    together = explain(model, batch, method)
    require(model.fingerprint() == before, method, "leaves the model bit-identical, without hooks and gradients")
    require(together.relevance.shape == batch.pixels.shape, method, "attributes to every input")
    require(torch.equal(together.target, batch.labels), method, "explains the predicted class by default")
    one = explain(model, batch.take([5]), method).relevance[0]
    scale = together.relevance[5].abs().amax().clamp_min(1e-12)
    require(bool(((one - together.relevance[5]).abs() / scale < 1e-6).all()), method, "explains each image by itself")
    other = explain(model, batch, method, target=(batch.labels + 1) % len(model.classes))
    require(not torch.equal(other.relevance, together.relevance), method, "depends on the class explained")


def check_signer(method: Signer, classifier: Classifier | None = None) -> None:
    """Check what every signer must keep: a finite vector of each image by itself, an untouched model.

    Args:
        method: The signer.
        classifier: Whose images are signed; a small random network by default.

    Raises:
        BrokenContract: A promise that is not kept.
    """
    model = _doubled(classifier or small_classifier())
    batch = labelled_batch(model)
    before, images = model.fingerprint(), batch.images.to(model.device)
    given = images.clone()
    raw = method.sign(model, given)
    require(isinstance(raw, Tensor) and raw.shape[:-1] == (len(batch),), method, "returns a tensor [N, D]")
    require(not raw.requires_grad, method, "returns vectors without the graph that made them")
    require(torch.equal(given, images), method, "writes nothing into the images")
    require(model.fingerprint() == before, method, "leaves the model bit-identical, without hooks and gradients")
    together = sign(model, batch, method).vectors
    require(bool((together != together[0]).any()), method, "depends on the image")
    copies = Batch(ids=tuple(f"copy of {name}" for name in batch.ids), pixels=batch.pixels, labels=batch.labels)
    first, second = np.split(sign(model, join([batch, copies]), method).vectors, 2)
    repeated = np.array_equal(first, second) and _close(first, together)
    require(repeated, method, "gives equal images equal vectors, each time")
    alone = [sign(model, batch.take([row]), method).vectors for row in range(len(batch))]
    require(all(one.shape == together[:1].shape for one in alone), method, "gives every image a vector of one length")
    require(_close(np.concatenate(alone), together), method, "gives an image the same vector alone and in a batch")


def check_embedder(method: Embedder) -> None:
    """Check what every embedder must keep: a finite place of each vector, repeatable, that shows who is near whom.

    Raises:
        BrokenContract: A promise that is not kept.
    """
    maps, _, kind = two_strategies()
    vectors = maps.reshape(len(maps), -1)
    given = vectors.copy()
    raw = np.asarray(method.embed(given))
    require(raw.shape == (len(vectors), 2) and bool(np.isfinite(raw).all()), method, "returns finite places [N, 2]")
    require(np.array_equal(given, vectors), method, "writes nothing into the vectors")
    require(np.array_equal(method.embed(given), raw), method, "repeats itself bit for bit")
    places = embed(vectors, method)
    rows = stream(0, "testing/rows").permutation(np.r_[np.arange(len(vectors)), np.arange(10)])
    ordered = np.array_equal(embed(vectors[rows], method), places[rows])
    require(ordered, method, "gives equal vectors equal places, in any order")
    neighbours, _ = nearest(places, 5)
    same = (kind[neighbours] == kind[:, None]).mean()
    require(bool(same > 0.95), method, "keeps the neighbours of two well separated groups together")
    promise = "places as few as four vectors"
    require(answer(lambda: embed(vectors[:4], method), method, promise) is not None, method, promise)


def check_clusterer(method: Clusterer) -> None:
    """Check what every clusterer must keep: numbered strategies of the maps themselves, whatever their order.

    Raises:
        BrokenContract: A promise that is not kept.
    """
    maps, images, kind = two_strategies()
    given = maps.copy(), images.copy()
    found = cluster(given[0], method, images=given[1])
    untouched = np.array_equal(given[0], maps) and np.array_equal(given[1], images)
    require(untouched, method, "writes nothing into maps and images")
    require(found.labels.dtype == np.int64, method, "labels maps by whole numbers, int64")
    require(bool((np.diff(found.sizes()) <= 0).all()), method, "numbers strategies by falling size")
    require(found.proposed == found.count, method, "finds as many strategies as it proposes")
    require(_same(cluster(maps, method, images=images), found), method, "repeats itself bit for bit")
    order = stream(0, "testing/rows").permutation(len(maps))
    again = cluster(maps[order], method, images=images[order]).labels
    require(adjusted_rand_score(found.labels[order], again) == 1, method, "finds the same groups in any order")
    rows = np.r_[order, order[:10]]
    twins = cluster(maps[rows], method, images=images[rows]).labels
    require(np.array_equal(twins[-10:], twins[:10]), method, "gives equal maps equal labels")
    pure = len(set(zip(found.labels.tolist(), kind.tolist(), strict=True))) == found.count
    require(pure, method, "puts no two clearly different maps into one strategy")
    two = cluster(maps, method, images=images, count=2)
    require(two.count == 2, method, "finds as many strategies as are asked for")
    require(adjusted_rand_score(kind, two.labels) == 1, method, "tells two clearly different kinds of maps apart")
    _check_little(method, maps, images)


def _check_little(method: Clusterer, maps: np.ndarray, images: np.ndarray) -> None:
    """Too little to tell anything apart is one strategy or a clear error; what is not finite is an error."""
    grey = np.full_like(images, 128)
    for what, few, seen in (
        ("one map", maps[:1], images[:1]),
        ("flat maps", np.ones_like(maps), grey),
        ("maps of zeros", np.zeros_like(maps), grey),
    ):
        promise = f"finds one strategy in {what}, or raises InvalidInput"
        found = answer(partial(method.strategies, few, seen), method, promise)
        require(found is None or found.count == 1, method, promise)
    broken = maps.copy()
    broken[3, 0, 0] = np.nan
    promise = "refuses maps that are not finite by InvalidInput"
    require(answer(lambda: method.strategies(broken, images), method, promise) is None, method, promise)


def _doubled(classifier: Classifier) -> Classifier:
    """In float64: rules divide by sums near 0 and attacks branch on a sign; float32 could tell batches apart."""
    return replace(classifier, network=copy.deepcopy(classifier.network).double())


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for the rounding to float32."""
    return bool(np.abs(one - other).max() <= 1e-6 * np.abs(other).max())


def _same(one: Strategies, other: Strategies) -> bool:
    """Equal bits in every field; NaN equals NaN."""
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Strategies)]
    return all(np.array_equal(first, second, equal_nan=not isinstance(first, str)) for first, second in pairs)


def check_detector(method: Method, classifier: Classifier | None = None) -> None:
    """Check what every detector must keep: an image's own finite score, equal bits for equal seeds, arrays only.

    Args:
        method: The detector.
        classifier: Whose images it guards; a small random network by default.

    Raises:
        BrokenContract: A promise that is not kept.
    """
    guarded = classifier or small_classifier()
    examples = _history(guarded)
    before, pixels = guarded.fingerprint(), examples.pixels.clone()
    first, again = (detectors.fit(guarded, examples, method, seed=3) for _ in range(2))
    require(guarded.fingerprint() == before, method, "leaves the model bit-identical, without hooks and gradients")
    require(torch.equal(examples.pixels, pixels), method, "writes nothing into the caller's images")
    arrays = all(isinstance(value, np.ndarray) and value.dtype != object for value in first.learned.values())
    require(arrays, method, "keeps what it learned as arrays of numbers")
    scores = first.score(guarded, pixels[:12])
    require(np.array_equal(scores, again.score(guarded, pixels[:12])), method, "learns the same from equal seeds")
    order = torch.tensor([7, 2, 11])
    alone = torch.cat([torch.from_numpy(first.score(guarded, pixels[row : row + 1])) for row in order.tolist()])
    close = np.allclose(alone, scores[order], rtol=1e-3, atol=1e-2 * float(scores.std()) + 1e-5)  # float32 networks
    require(bool(close), method, "scores an image the same in any batch")
    require(len(first.score(guarded, pixels[:0])) == 0, method, "scores no images without an error")


def _history(classifier: Classifier, count: int = 30) -> detectors.Examples:
    """Random images, and copies with a pattern added that no detector needs to miss."""
    clean = labelled_batch(classifier, count)
    pattern = torch.randint(-12, 13, clean.pixels.shape[1:], generator=torch.Generator().manual_seed(1))
    changed = (clean.pixels.int() + pattern).clamp(0, 255).to(torch.uint8)
    return detectors.Examples(
        sources=clean.ids * 2, pixels=torch.cat([clean.pixels, changed]), labels=clean.labels.repeat(2),
        kinds=("clean",) * count + ("pgd",) * count, names=("clean",) * count + ("pgd",) * count,
        attacked=np.arange(2 * count) >= count,
    )  # fmt: skip
