"""The contracts of the room `signatures`: every registered method keeps them, and no broken promise slips through."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

import heatprint as hp
from heatprint import signatures
from heatprint.attacks import ATTACKS
from heatprint.core.errors import BrokenContract, InvalidInput, UnknownName
from heatprint.core.registry import Registry
from heatprint.defences import DEFENCES
from heatprint.explainers import EXPLAINERS
from heatprint.signatures import CLUSTERERS, EMBEDDERS, SIGNERS, Strategies
from heatprint.signatures.embeddings.pca import PCA
from heatprint.testing import check_clusterer, check_embedder, check_signer, two_strategies

FAST = {"torchdr": {"device": "cpu", "iterations": 40}}


@pytest.mark.parametrize("name", SIGNERS.names())
def test_every_signer_keeps_its_contract(name):
    check_signer(SIGNERS.make(name))


@pytest.mark.parametrize("settings", [{"layer": "input", "side": 5}, {"layer": "penultimate", "explained": "contrast"}])
def test_the_lrp_signature_keeps_its_contract_at_other_layers(settings):
    check_signer(SIGNERS.make("lrp", **settings))


@pytest.mark.parametrize("name", EMBEDDERS.names())
def test_every_embedder_keeps_its_contract(name):
    if name == "torchdr":
        pytest.importorskip("torchdr")
    check_embedder(EMBEDDERS.make(name, **FAST.get(name, {})))


@pytest.mark.parametrize("name", CLUSTERERS.names())
def test_every_clusterer_keeps_its_contract(name):
    with threadpool_limits(limits=1):  # k-means on few maps waits for its threads longer than it works
        check_clusterer(CLUSTERERS.make(name))


# Broken signers


def shrunk(images):
    """A signature that keeps every promise: the means of 4 x 4 areas."""
    return torch.nn.functional.avg_pool2d(images, 4).flatten(1)


class Signs:
    """A signer by a function of the classifier and the images."""

    def __init__(self, how):
        self.how = how

    def sign(self, classifier, images):
        return self.how(classifier, images)


def writes(classifier, images):
    return shrunk(images.clamp_(0.4, 0.5))


def trains(classifier, images):
    next(classifier.network.parameters()).data += 1e-3
    return shrunk(images)


def hooks(classifier, images):
    classifier.network.register_forward_hook(lambda *_: None)
    return shrunk(images)


def differentiates(classifier, images):
    return classifier(images.requires_grad_())


BROKEN_SIGNERS = {
    "a tensor": lambda _, images: shrunk(images).numpy(),
    r"\[N, D\]": lambda _, images: images.mean((1, 2, 3)),
    "without the graph": differentiates,
    "writes nothing": writes,
    "the model bit-identical": trains,
    "without hooks": hooks,
    "not finite": lambda _, images: shrunk(images) * torch.nan,
    "depends on the image": lambda _, images: torch.ones(len(images), 5),
    "equal images equal vectors": lambda _, images: shrunk(images) + 0.01 * torch.rand(len(images), 1),
    "one length": lambda _, images: shrunk(images)[:, : 2 * len(images)],
    "alone and in a batch": lambda _, images: shrunk(images) - shrunk(images).mean(0) / 100,
}


def test_a_signer_of_ones_own_passes(small):
    check_signer(Signs(lambda _, images: shrunk(images)))
    check_signer(Signs(lambda classifier, images: classifier(images).detach()), small)


@pytest.mark.parametrize("promise", BROKEN_SIGNERS)
def test_a_signer_that_breaks_a_promise_is_refused(promise):
    with pytest.raises(BrokenContract, match=promise):
        check_signer(Signs(BROKEN_SIGNERS[promise]))


# Broken embedders


class Embeds:
    """An embedder by a function of the vectors and of how often it was asked before."""

    def __init__(self, how):
        self.how, self.asked = how, 0

    def embed(self, vectors):
        self.asked += 1
        return self.how(vectors, self.asked - 1)


def plane(vectors, asked=0):
    """An embedding that keeps every promise."""
    return PCA().embed(vectors)


def centres(vectors, asked):
    vectors -= vectors.mean(0)
    return plane(vectors)


def hungry(vectors, asked):
    if len(vectors) < 15:
        raise ValueError("n_neighbors must be less than n_samples")
    return plane(vectors)


def by_row(vectors, asked):
    return np.random.default_rng(0).normal(size=(len(vectors), 2))


BROKEN_EMBEDDERS = {
    r"places \[N, 2\]": lambda vectors, _: plane(vectors)[:, :1],
    "finite": lambda vectors, _: plane(vectors) * np.nan,
    "writes nothing": centres,
    "repeats itself": lambda vectors, asked: plane(vectors) * (1 + 1e-12 * asked),
    "in any order": lambda vectors, asked: plane(vectors) + (asked > 2),
    "neighbours": by_row,
    "as few as four": hungry,
}


def test_an_embedder_of_ones_own_passes():
    check_embedder(Embeds(plane))


@pytest.mark.parametrize("promise", BROKEN_EMBEDDERS)
def test_an_embedder_that_breaks_a_promise_is_refused(promise):
    with pytest.raises(BrokenContract, match=promise):
        check_embedder(Embeds(BROKEN_EMBEDDERS[promise]))


# Broken clusterers


class Clusters:
    """A clusterer by a function of the maps, the images, the count and of how often it was asked before."""

    def __init__(self, how):
        self.how, self.asked = how, 0

    def strategies(self, maps, images=None, *, count=None):
        self.asked += 1
        return self.how(maps, images, count, self.asked - 1)


def halves(maps, images=None, count=None, asked=0):
    """A clustering that keeps every promise on two strategies: where more of the relevance is, above or below."""
    if not np.isfinite(maps).all():
        raise InvalidInput("halves: a map is not finite.")
    return grouped(np.sign((maps[:, :6] - maps[:, 6:]).sum((1, 2)).round(3)))


def grouped(groups, **changes):
    """Strategies from any names of groups."""
    _, place, sizes = np.unique(groups, axis=0, return_inverse=True, return_counts=True)
    labels = np.argsort(np.argsort(-sizes, kind="stable"))[place.ravel()]
    found = Strategies(
        labels=labels, count=len(sizes), proposed=len(sizes), eigenvalues=np.empty(0), null=np.empty(0),
        embedding=np.eye(len(sizes))[labels], stability=np.nan, separability=0.0,
    )  # fmt: skip
    return replace(found, **changes)


def with_labels(change):
    """`halves` with other labels."""

    def clustered(*asked):
        found = halves(*asked)
        return replace(found, labels=change(found.labels))

    return clustered


def split_further(maps, *asked):
    """Groups within the two strategies, by a value that means nothing."""
    return np.column_stack([halves(maps, *asked).labels, maps[:, 5, 5] > 0])


def second_copies(maps, *asked):
    flat = np.unique(maps.reshape(len(maps), -1), axis=0, return_index=True)[1]
    return grouped(np.column_stack([halves(maps, *asked).labels, ~np.isin(np.arange(len(maps)), flat)]))


def rewrites(maps, *asked):
    found = halves(maps, *asked)
    maps -= maps.mean()
    return found


def fails_for(fails):
    """`halves`, with an error of some library where the maps are of this kind."""

    def clustered(maps, *asked):
        if fails(maps):
            raise ValueError("eigenvalues did not converge")
        return halves(maps, *asked)

    return clustered


BROKEN_CLUSTERERS = {
    "writes nothing": rewrites,
    "every one of 0 to count - 1": with_labels(lambda labels: labels + 1),
    "whole numbers": with_labels(lambda labels: labels.astype(float)),
    "falling size": with_labels(lambda labels: labels.max() - labels),
    "as it proposes": lambda *asked: replace(halves(*asked), proposed=3),
    "repeats itself": lambda *asked: replace(halves(*asked), stability=float(asked[-1])),
    "in any order": lambda maps, *_: grouped(np.arange(len(maps)) < 70),
    "equal maps equal labels": second_copies,
    "no two clearly different maps": lambda maps, *_: grouped(np.zeros(len(maps))),
    "as are asked for": lambda *asked: grouped(split_further(*asked)),
    "tells two clearly different": lambda *asked: grouped(split_further(*asked)[:, 1]) if asked[2] else halves(*asked),
    "one strategy in one map": fails_for(lambda maps: len(maps) == 1),
    "one strategy in flat maps": lambda maps, *asked: (
        grouped(np.arange(len(maps)) % 2) if (maps == 1).all() else halves(maps, *asked)
    ),
    "one strategy in maps of zeros": fails_for(lambda maps: not maps.any()),
    "not finite": lambda maps, *asked: halves(np.nan_to_num(maps), *asked),
}


def test_a_clusterer_of_ones_own_passes():
    check_clusterer(Clusters(halves))


@pytest.mark.parametrize("promise", BROKEN_CLUSTERERS)
def test_a_clusterer_that_breaks_a_promise_is_refused(promise):
    with pytest.raises(BrokenContract, match=promise):
        check_clusterer(Clusters(BROKEN_CLUSTERERS[promise]))


def test_what_is_unusable_may_be_refused_by_name_but_not_by_chance():
    """A clear error is as good as one strategy; that of a library is not, whatever it is about."""

    def refuses(maps, *asked):
        if len(maps) < 2 or (maps == maps[0]).all():
            raise InvalidInput("halves: too few different maps.")
        return halves(maps, *asked)

    check_clusterer(Clusters(refuses))
    with pytest.raises(BrokenContract, match="not finite") as caught:
        check_clusterer(Clusters(fails_for(lambda maps: np.isnan(maps).any())))
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_drawn_strategies_are_what_they_say():
    maps, images, kind = two_strategies(9, 4)
    assert (maps.shape, images.shape, np.bincount(kind).tolist()) == ((13, 12, 12), (13, 3, 16, 16), [4, 9])
    assert (maps.dtype, images.dtype) == (np.float32, np.uint8)
    above = maps[:, :4].mean((1, 2)) > maps[:, 8:].mean((1, 2))
    right = images[..., 8:].mean((1, 2, 3)) > images[..., :8].mean((1, 2, 3)) + 50
    assert np.array_equal(above, kind == 0)
    assert np.array_equal(right, kind == 1)
    assert not np.array_equal(kind, np.sort(kind))


# Names


def test_a_name_of_two_kinds_of_methods_is_an_error_and_not_a_choice(monkeypatch):
    class Point:
        name, value = "lrp", "heatprint.signatures.embeddings.pca:PCA"

    groups = {"heatprint.embeddings": [Point]}
    monkeypatch.setattr("heatprint.core.registry.entry_points", lambda group: groups.get(group, []))
    monkeypatch.setattr(signatures, "EMBEDDERS", Registry("embeddings", {"pca": Point.value}))
    with pytest.raises(
        InvalidInput, match=r"'lrp' .* SIGNERS and EMBEDDERS.* write signatures\.SIGNERS\.make\('lrp'\)"
    ):
        signatures.make("lrp")
    assert signatures.EMBEDDERS.make("lrp") == signatures.make("pca") == PCA()


def test_an_unknown_name_is_held_against_all_three_kinds():
    for wrong, right in (("umpa", "umap"), ("sprai", "spray"), ("logit", "logits")):
        with pytest.raises(UnknownName, match=f"Did you mean '{right}'"):
            signatures.make(wrong)
    names = signatures.names()
    assert len(set(names)) == len(names)
    for name in names:
        assert type(signatures.make(name)).__module__.startswith("heatprint.signatures.")


@pytest.mark.parametrize(
    "registry", [ATTACKS, EXPLAINERS, SIGNERS, EMBEDDERS, CLUSTERERS, DEFENCES], ids=lambda r: r.room
)
def test_authors_are_told_the_group_of_every_registry(registry):
    assert f"`heatprint.{registry.room}`" in (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def test_the_rooms_of_the_atlas_are_at_the_top():
    assert hp.cluster is signatures.cluster
    assert hp.atlas.__name__ == "heatprint.atlas"
    code = (
        "import heatprint as hp, sys; assert 'atlas' in dir(hp)\n"
        "assert hp.export.export is hp.export.door.export\nprint('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
