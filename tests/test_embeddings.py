"""Maps of signatures: every embedder, new points, quality, the noise floor, densities."""

import importlib.util
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from heatprint.core.errors import BrokenContract, InvalidInput, MissingExtra
from heatprint.signatures import EMBEDDERS, embed
from heatprint.signatures.embeddings import umap
from heatprint.signatures.embeddings.density import density, levels
from heatprint.signatures.embeddings.floor import ROUNDING, Floor, displacements, with_floor
from heatprint.signatures.embeddings.pca import PCA
from heatprint.signatures.embeddings.places import fitted, place
from heatprint.signatures.embeddings.quality import quality


def make(name):
    if name == "torchdr":
        pytest.importorskip("torchdr")
        return EMBEDDERS.make(name, device="cpu", iterations=40)
    return EMBEDDERS.make(name)


def clusters(count=60, columns=8, seed=0, groups=3):
    rng = np.random.default_rng(seed)
    group = np.arange(count) % groups
    return (3 * group[:, None] + rng.normal(size=(count, columns))).astype(np.float32), group


# every embedder


@pytest.mark.parametrize("name", EMBEDDERS.names())
def test_the_order_of_the_rows_changes_no_place_and_twins_share_theirs(name):
    vectors, group = clusters(150)
    vectors = np.concatenate([vectors, vectors[:50], vectors[:10]])  # failed attacks, and those that fail twice
    points = embed(vectors, make(name))
    order = np.random.default_rng(1).permutation(len(vectors))
    assert points.dtype == np.float64
    assert np.array_equal(embed(vectors[order], make(name)), points[order])
    assert np.array_equal(points[150:200], points[:50])
    assert np.array_equal(points[200:], points[:10])
    near = cdist(points[:150], points[:150]).argsort(1)[:, 1:6]
    assert (group[near] == group[:, None]).mean() > 0.95


@pytest.mark.parametrize("name", EMBEDDERS.names())
@pytest.mark.parametrize(
    "vectors",
    [
        np.full((5, 3), 2.0),
        np.eye(3)[[0, 1, 0, 1]],
        np.eye(3)[[0, 1, 2, 2]],
        np.eye(4),
        np.eye(5),
        np.arange(12.0)[:, None],
        np.outer(np.arange(8.0), np.ones(5)),
        np.eye(6)[:, [0, 0]],
    ],
    ids=["one", "two", "three", "four", "five", "a column", "a line", "two places"],
)
def test_few_or_degenerate_vectors_have_defined_places(name, vectors):
    points = embed(vectors.astype(np.float32), make(name))
    assert points.shape == (len(vectors), 2)
    assert np.isfinite(points).all()
    same = cdist(vectors, vectors) == 0
    assert np.array_equal(cdist(points, points)[same], np.zeros(same.sum()))


@pytest.mark.parametrize(("name", "count"), [("pca", 700), ("umap", 700), ("tsne", 300)])
def test_the_number_of_threads_changes_no_place(name, count):
    vectors, _ = clusters(count, 128, groups=20)
    maps = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            maps.append(embed(vectors, make(name)))
    assert np.array_equal(*maps)


def test_tsne_of_tiny_values_is_that_of_the_same_larger():
    code = """
import numpy as np
from heatprint.signatures import embed, make
vectors = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
maps = [embed(vectors * np.float32(2.0**power), make("tsne")) for power in (-83, 0)]
assert np.array_equal(*maps)
"""  # in a process of its own, which used to crash
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("seeded", ["umap", "tsne", "torchdr"])
def test_settings_out_of_range_are_named(seeded):
    with pytest.raises(InvalidInput, match="seed = -1"):
        EMBEDDERS.make(seeded, seed=-1)


def test_settings_of_neighbourhoods_are_checked():
    with pytest.raises(InvalidInput, match="neighbours = 1 must"):
        EMBEDDERS.make("umap", neighbours=1)
    with pytest.raises(InvalidInput, match=r"min_dist = 2\.0"):
        EMBEDDERS.make("torchdr", min_dist=2)
    with pytest.raises(InvalidInput, match="iterations = 0"):
        EMBEDDERS.make("torchdr", iterations=0)
    with pytest.raises(InvalidInput, match=r"perplexity = 0\.0"):
        EMBEDDERS.make("tsne", perplexity=0)


@pytest.mark.parametrize("name", ["pca", "tsne"])
@pytest.mark.parametrize("wrong", [np.full((9, 2), np.nan), np.ones((3, 2)), np.ones(9), np.ones((9, 0))])
def test_vectors_that_are_none_are_refused(name, wrong):
    with pytest.raises(InvalidInput, match=r"at least four finite vectors|9 of 9 vectors hold NaN"):
        embed(wrong, make(name))
    with pytest.raises(InvalidInput, match=r"at least four finite vectors|9 of 9 vectors hold NaN"):
        with_floor(wrong, make(name), seed=0)


class Counting:
    """A plug-in that places everything by its first two columns, or wrongly."""

    def __init__(self, wrong=None):
        self.seen, self.wrong = [], wrong

    def embed(self, vectors):
        self.seen.append(vectors)
        return vectors[:, :2] if self.wrong is None else self.wrong(vectors)


def test_a_plug_in_sees_each_different_vector_once_in_an_order_of_the_values():
    vectors, _ = clusters(20)
    first, second = Counting(), Counting()
    embed(np.concatenate([vectors, vectors]), first)
    embed(vectors[::-1], second)
    assert first.seen[0].shape == (20, 8)
    assert np.array_equal(first.seen[0], second.seen[0])
    few = Counting()
    assert np.array_equal(embed(np.repeat(vectors[:3], 2, axis=0), few), np.repeat(PCAs(vectors[:3]), 2, axis=0))
    assert not few.seen


def PCAs(vectors):
    return embed(np.repeat(vectors, 2, axis=0), PCA())[::2]


@pytest.mark.parametrize("wrong", [lambda v: v[:, :1], lambda v: v[1:, :2], lambda v: np.full((len(v), 2), np.inf)])
def test_a_plug_in_that_returns_something_else_is_named(wrong):
    with pytest.raises(BrokenContract, match="Counting returned"):
        embed(clusters(20)[0], Counting(wrong))


# one method each


def test_pca_is_the_projection_on_the_singular_vectors():
    vectors, _ = clusters(50, 5)
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points = PCA().embed(vectors)
    assert np.allclose(np.abs(points), np.abs(left[:, :2] * sizes[:2]))
    loadings = np.linalg.lstsq(centred, points, rcond=None)[0]
    assert (loadings[np.abs(loadings).argmax(0), [0, 1]] > 0).all()
    wide = clusters(6, 40)[0]
    assert np.allclose(cdist(PCA().embed(wide[:3]), PCA().embed(wide[:3])), cdist(wide[:3], wide[:3]))  # in a plane
    assert np.array_equal(PCA().embed(wide[:1]), [[0.0, 0.0]])
    assert np.allclose(PCA().embed(np.array([[0.0], [3.0]])), [[-1.5, 0], [1.5, 0]])


def test_umap_takes_its_neighbours_from_us_and_only_for_euclidean_distance():
    vectors, _ = clusters(30, 4)
    rows, far, index = umap._neighbours(vectors, 5)
    whole = cdist(vectors, vectors)
    assert index is None
    assert np.array_equal(rows, whole.argsort(1)[:, :5])
    assert np.allclose(far, np.sort(whole, 1)[:, :5], atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "manhattan"])
def test_umap_by_other_metrics_is_seeded(metric):
    vectors = clusters(40)[0] - 4
    points = embed(vectors, EMBEDDERS.make("umap", metric=metric, seed=3))
    assert np.array_equal(points, embed(vectors, EMBEDDERS.make("umap", metric=metric, seed=3)))
    assert not np.array_equal(points, embed(vectors, EMBEDDERS.make("umap", metric=metric, seed=4)))


def test_tsne_follows_its_seed_and_knows_few_points():
    vectors, _ = clusters(40)
    assert np.isfinite(embed(vectors, EMBEDDERS.make("tsne", perplexity=1000))).all()
    assert not np.array_equal(
        embed(vectors, EMBEDDERS.make("tsne", perplexity=2)), embed(vectors, EMBEDDERS.make("tsne", perplexity=10))
    )


def test_umap_warms_up_beside_the_main_thread_and_silences_nothing_else():
    thread = umap.warm()
    assert thread.daemon
    thread.join(timeout=120)
    assert not thread.is_alive()
    with pytest.warns(UserWarning, match="of mine"):
        warnings.warn("of mine", stacklevel=1)


def test_nothing_optional_is_imported_before_it_is_used():
    code = (
        "import sys; from heatprint.signatures import EMBEDDERS; [EMBEDDERS.load(n) for n in EMBEDDERS.names()];"
        "print(sorted({'umap', 'numba', 'torchdr', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(importlib.util.find_spec("torchdr") is not None, reason="TorchDR is installed")
def test_torchdr_says_what_to_install():
    with pytest.raises(MissingExtra, match=re.escape("heatprint[gpu]")):
        embed(clusters()[0], EMBEDDERS.make("torchdr"))


def test_torchdr_leaves_the_generators_of_the_process_alone():
    pytest.importorskip("torchdr")
    import random

    import torch

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    benchmark = torch.backends.cudnn.benchmark
    embed(clusters()[0], make("torchdr"))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert benchmark == torch.backends.cudnn.benchmark


# new points


def test_places_are_means_weighted_by_inverse_distance():
    vectors = np.array([[0.0, 0], [4, 0], [0, 100]], np.float32)
    points = np.array([[0.0, 0], [8, 2], [5, 5]])
    got = place(points, vectors, np.array([[1.0, 0]]), neighbours=2)  # distances 1 and 3: weights 3/4 and 1/4
    assert np.allclose(got.points, [[2, 0.5]])
    assert np.allclose(got.distance, [1])
    every = place(points, vectors, np.array([[1.0, 0]]), neighbours=50)
    weights = 1 / np.array([1, 3, np.hypot(1, 100)])
    assert np.allclose(every.points, weights @ points / weights.sum())


def test_a_twin_lies_exactly_on_its_fitted_vector():
    vectors, _ = clusters()
    vectors = np.concatenate([vectors, vectors[:7]])
    points = embed(vectors, PCA())
    got = place(points, vectors, vectors)
    assert np.array_equal(got.points, points)
    assert np.array_equal(got.distance, np.zeros(len(vectors)))
    assert not got.outside.any()


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 70))
def test_a_place_depends_on_nothing_else_bit_for_bit(seed, neighbours, columns):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (40, columns)).astype(np.float32)  # with duplicates and ties
    points = embed(vectors, PCA())
    new = np.concatenate([rng.normal(size=(6, columns)), vectors[:3]]).astype(np.float32)
    order, ready = rng.permutation(40), fitted(points, vectors)
    whole = ready.place(new, neighbours=neighbours)
    other = place(points[order], vectors[order], new, neighbours=neighbours)
    alone = [ready.place(row[None], neighbours=neighbours) for row in new]
    assert np.array_equal(whole.points, other.points)
    assert np.array_equal(whole.points, np.concatenate([one.points for one in alone]))
    assert np.array_equal(whole.distance, np.concatenate([one.distance for one in alone]))
    assert (whole.points >= points.min(0) - 1e-9).all()
    assert (whole.points <= points.max(0) + 1e-9).all()


def test_what_the_map_does_not_know_is_outside():
    vectors, _ = clusters(200)
    own = np.sort(cdist(vectors, vectors), 1)[:, 1]
    got = place(embed(vectors, PCA()), vectors, np.stack([vectors.max(0) + 100, vectors[0] + 1e-4]))
    assert got.outside.tolist() == [True, False]
    assert np.isclose(got.usual, np.quantile(own, 0.99))
    alone = place(np.zeros((3, 2)), np.ones((3, 2)), np.array([[1.0, 1], [1, 2]]))
    assert (alone.usual, alone.outside.tolist()) == (0.0, [False, True])
    assert np.array_equal(alone.points, np.zeros((2, 2)))
    assert place(np.zeros((3, 2)), np.ones((3, 2)), np.empty((0, 2))).points.shape == (0, 2)


def test_places_of_something_else_are_refused():
    vectors, _ = clusters()
    points = embed(vectors, PCA())
    with pytest.raises(InvalidInput, match=r"like the fitted ones.*got \[2, 3\]"):
        place(points, vectors, np.ones((2, 3)))
    with pytest.raises(InvalidInput, match="like the fitted ones"):
        place(points, vectors, np.full((1, 8), np.nan))
    with pytest.raises(InvalidInput, match="neighbours = 0"):
        place(points, vectors, vectors, neighbours=0)
    with pytest.raises(InvalidInput, match=r"got \[59, 2\]"):
        fitted(points[1:], vectors)
    with pytest.raises(InvalidInput, match="not finite"):
        fitted(points * np.nan, vectors)


# quality


def slow_quality(vectors, points, k):
    """Venna and Kaski's sums over whole rank matrices."""
    n = len(vectors)
    ranks = [cdist(x, x).argsort(1, kind="stable").argsort(1) for x in (vectors.astype(np.float64), points)]
    near = [(rank >= 1) & (rank <= k) for rank in ranks]  # rank 0 is the point itself
    scale = 2 / (k * (2 * n - 3 * k - 1))
    trust = 1 - scale * ((ranks[0] - k) * (near[1] & ~near[0])).sum(1)
    keep = 1 - scale * ((ranks[1] - k) * (near[0] & ~near[1])).sum(1)
    return trust, keep, (near[0] & near[1]).sum(1) / k


@pytest.mark.parametrize("block", [2**22, 500])
def test_quality_equals_the_definition_and_scikit_learn(monkeypatch, block):
    from sklearn.manifold import trustworthiness

    monkeypatch.setattr("heatprint.signatures.embeddings.quality.BLOCK", block)
    rng = np.random.default_rng(0)
    vectors, points = rng.normal(size=(90, 12)).astype(np.float32) + 50, rng.normal(size=(90, 2))
    for k in (1, 7, 44):
        got = quality(vectors, points, neighbours=k)
        for mine, theirs in zip(
            (got.trustworthiness, got.continuity, got.preservation), slow_quality(vectors, points, k), strict=True
        ):
            assert np.allclose(mine, theirs)
        assert np.isclose(got.overall.trustworthiness, trustworthiness(vectors, points, n_neighbors=k))
        assert np.isclose(got.overall.continuity, trustworthiness(points, vectors, n_neighbors=k))
        assert got.neighbours == k


def test_quality_of_a_faithful_map_is_one_and_of_chance_as_stated():
    rng = np.random.default_rng(1)
    plane = rng.normal(size=(400, 2)).astype(np.float32)
    whole = quality(plane @ rng.normal(size=(2, 9)).astype(np.float32), plane)
    assert whole.overall.preservation < 1  # a skew of the plane is not the plane
    turn = np.linalg.qr(rng.normal(size=(9, 9)))[0][:2]
    same = quality((plane @ turn).astype(np.float64), plane)
    assert min(same.overall.trustworthiness, same.overall.continuity, same.overall.preservation) > 0.9999
    chance = quality(plane, rng.permutation(plane))
    assert abs(chance.overall.preservation - chance.overall.chance) < 0.01
    assert abs(chance.overall.trustworthiness - 0.5) < 0.03


def test_copies_change_no_quality():
    vectors, _ = clusters(40)
    points = embed(vectors, PCA())
    once = quality(vectors, points, neighbours=6)
    rows = np.concatenate([np.arange(40), np.zeros(30, int), [3, 4]])
    order = np.random.default_rng(0).permutation(len(rows))
    twice = quality(vectors[rows[order]], points[rows[order]], neighbours=6)
    assert twice.overall == once.overall
    assert np.array_equal(twice.trustworthiness, once.trustworthiness[rows[order]])
    assert np.array_equal(twice.preservation, once.preservation[rows[order]])
    assert (twice.different, twice.neighbours) == (40, 6)


def test_quality_of_few_points_is_defined():
    vectors, _ = clusters(5)
    assert quality(vectors, embed(vectors, PCA())).neighbours == 2
    two = quality(np.repeat(vectors[:2], 3, axis=0), np.repeat(np.eye(2), 3, axis=0))
    assert (two.neighbours, two.different) == (0, 2)
    assert np.isnan(two.overall.trustworthiness)
    assert np.isnan(two.preservation).all()
    with pytest.raises(InvalidInput, match="at least one neighbour"):
        quality(vectors, vectors[:, :2], neighbours=0)
    with pytest.raises(InvalidInput, match="not finite"):
        quality(vectors, np.full((5, 2), np.nan))


# the noise floor, and displacement


def test_the_floor_of_a_linear_map_is_the_rounding():
    vectors, _ = clusters(300)
    points, floor = with_floor(vectors, PCA(), seed=0)
    assert points.shape == (300, 2)
    assert floor.images == 200
    assert 0 < floor.median < floor.high < floor.most <= 5 * ROUNDING * np.linalg.norm(vectors, axis=1).max()
    assert floor.high <= floor.rounding * 1.5
    assert 0.3 < floor.rounding / (ROUNDING * np.linalg.norm(vectors, axis=1).max()) < 1.5
    assert np.allclose(points[:, 0], embed(vectors, PCA())[:, 0], atol=0.1)  # the twins weigh a little


@pytest.mark.parametrize("name", ["pca", "umap"])
def test_the_floor_does_not_depend_on_the_order_of_the_rows(name):
    vectors, _ = clusters(90)
    vectors = np.concatenate([vectors, vectors[:30]])
    order = np.random.default_rng(5).permutation(len(vectors))
    points, floor = with_floor(vectors, make(name), seed=1, count=20)
    again, same = with_floor(vectors[order], make(name), seed=1, count=20)
    assert floor == same
    assert np.array_equal(again, points[order])
    assert np.array_equal(points[90:], points[:30])
    assert floor.images == 20
    extent = np.ptp(points, axis=0).max()
    assert floor.high < 0.2 * extent  # neighbours of neighbours would be farther


def test_the_floor_follows_its_seed_and_knows_vectors_that_cannot_move():
    vectors, _ = clusters(90)
    assert with_floor(vectors, PCA(), seed=0, count=20)[1] != with_floor(vectors, PCA(), seed=1, count=20)[1]
    points, floor = with_floor(np.zeros((6, 3)), PCA(), seed=0)
    assert floor == Floor(images=1, median=0.0, high=0.0, most=0.0, rounding=0.0)
    assert np.array_equal(points, np.zeros((6, 2)))
    with pytest.raises(InvalidInput, match="count = 0"):
        with_floor(vectors, PCA(), seed=0, count=0)


FLOOR = Floor(images=9, median=0.1, high=0.5, most=0.6, rounding=1e-3)


def test_displacement_in_closed_form():
    clean = np.array([[0.0, 0], [2, 0], [0, 2], [0, 2]])  # nearest different neighbours are 2 away
    attacked = clean + np.array([[3.0, 4], [0, 0], [0, 1e-4], [0, 0]])
    places = np.zeros((4, 2))
    moved = displacements(clean, attacked, places, np.array([[3, 4], [0, 0], [0.3, 0], [0, 0.6]]), FLOOR)
    assert np.allclose(moved.distance, [5, 0, 1e-4, 0], atol=1e-6)
    assert moved.unit == 2
    assert np.allclose(moved.relative, moved.distance / 2)
    assert np.allclose(moved.shown, [5, 0, 0.3, 0.6])
    assert moved.moved.tolist() == [True, False, False, False]
    assert moved.beyond.tolist() == [True, False, False, True]


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_failed_attacks_do_not_move_and_scale_does_not_matter(seed, scale):
    vectors, _ = clusters(30, seed=seed)
    attacked = vectors + np.where(np.arange(30) % 2, 1, 0)[:, None].astype(np.float32)
    found = []
    for size in (1, scale):
        both = np.concatenate([vectors, attacked]) * np.float32(size)
        points, floor = with_floor(both, PCA(), seed=0)
        found.append(displacements(both[:30], both[30:], points[:30], points[30:], floor))
    for result in found:
        for values in (result.distance, result.relative, result.shown, result.moved, result.beyond):
            assert not values[::2].any()
        assert result.moved[1::2].all()
    assert np.allclose(found[0].relative, found[1].relative, rtol=1e-4)


def test_displacement_without_a_unit_or_of_other_shapes():
    one, places = np.ones((3, 2)), np.zeros((3, 2))
    moved = displacements(one, np.array([[1.0, 1], [2, 1], [1, 1]]), places, places, FLOOR)
    assert np.isnan(moved.unit)
    assert moved.relative[[0, 2]].tolist() == [0, 0]
    assert np.isnan(moved.relative[1])
    empty = displacements(one[:0], one[:0], places[:0], places[:0], FLOOR)
    assert len(empty.distance) == len(empty.beyond) == 0
    with pytest.raises(InvalidInput, match=r"in one order; got .*\[2, 2\]"):
        displacements(one, one[1:], places, places, FLOOR)


def test_vectors_that_are_not_finite_as_float32_are_counted_and_refused():
    vectors = np.random.default_rng(0).normal(size=(30, 5))
    vectors[:4] = 1e39
    with pytest.raises(InvalidInput, match="embed: 4 of 30 vectors"):
        embed(vectors, PCA())
    with pytest.raises(InvalidInput, match="with_floor: 4 of 30 vectors"):
        with_floor(vectors, PCA(), seed=0)
    one, places = np.ones((3, 2)), np.zeros((3, 2))
    for which in range(4):
        given = [one, one, places, places]
        given[which] = np.where(np.arange(3)[:, None] == 1, np.nan, given[which])
        with pytest.raises(InvalidInput, match="displacements: 1 of 3"):
            displacements(*given, FLOOR)


# density


def test_density_equals_the_kernel_sum():
    from scipy.stats import norm

    points = np.random.default_rng(0).normal(size=(80, 2)) * [1, 5]
    got = density(points, grid=200)
    assert np.isclose(got.bandwidth, 80 ** (-1 / 6) * np.sqrt((points[:, 0].var() + points[:, 1].var()) / 2))
    kernels = [
        norm.pdf(axis[:, None], column, got.bandwidth)
        for axis, column in ((got.y, points[:, 1]), (got.x, points[:, 0]))
    ]
    assert np.allclose(got.value, kernels[0] @ kernels[1].T / 80, atol=2e-3 * got.value.max())
    assert np.allclose(got.x[[0, -1]], [points[:, 0].min(), points[:, 0].max()], atol=5 * got.bandwidth)


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 40), st.sampled_from([1e-6, 0.1, 3.0]))
def test_density_sums_to_one_and_levels_hold_their_shares(seed, count, grid, bandwidth):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 2))
    got = density(points, grid=grid, bandwidth=bandwidth)
    again = density(points[rng.permutation(count)], grid=grid, bandwidth=bandwidth)
    assert np.array_equal(got.value, again.value)
    cell = (got.x[1] - got.x[0]) * (got.y[1] - got.y[0])
    assert np.isclose(got.value.sum() * cell, 1)
    shares = (0.1, 0.5, 0.9, 1.0)
    for share, level in zip(shares, levels(got, shares), strict=True):
        assert got.value[got.value >= level].sum() * cell >= share - 1e-9
        assert got.value[got.value > level].sum() * cell <= share + 1e-9


def test_levels_of_a_normal_distribution_are_known():
    points = np.random.default_rng(0).normal(size=(20000, 2))
    got = density(points, grid=128)
    variance = 1 + got.bandwidth**2
    for share, level in zip((0.5, 0.9), levels(got), strict=True):
        assert np.isclose(level, (1 - share) / (2 * np.pi * variance), rtol=0.05)


def test_density_of_nothing_or_of_one_place():
    assert density(np.ones((3, 2)), bandwidth=0.5).value.argmax() in {
        64 * 31 + 31,
        64 * 31 + 32,
        64 * 32 + 31,
        64 * 32 + 32,
    }
    with pytest.raises(InvalidInput, match=r"bandwidth is 0\.0"):
        density(np.ones((3, 2)))
    with pytest.raises(InvalidInput, match="bandwidth is 1e-20, but must be above 2e-12"):
        density(np.array([[0, 0], [1, 2.0]]), bandwidth=1e-20)
    for wrong in (np.empty((0, 2)), np.full((4, 2), np.nan), np.ones((4, 3))):
        with pytest.raises(InvalidInput, match="finite places"):
            density(wrong)
    with pytest.raises(InvalidInput, match="shares"):
        levels(density(np.eye(2)), (0.5, 1.5))
