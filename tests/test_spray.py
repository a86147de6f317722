"""Spectral relevance analysis: against slow matrix versions, closed forms, and planted strategies."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from heatprint.atlas import counterfactual, suspect_region
from heatprint.core.errors import InvalidInput
from heatprint.core.streams import stream
from heatprint.core.values import Batch
from heatprint.data import menagerie
from heatprint.explainers import make as explainer
from heatprint.models import load, train
from heatprint.models.predict import predict
from heatprint.signatures import cluster
from heatprint.signatures.maps import heat_maps
from heatprint.signatures.neighbours import distinct, nearest
from heatprint.signatures.spray.fisher import separability
from heatprint.signatures.spray.graph import neighbour_graph, smallest
from heatprint.signatures.spray.proposal import conductance, separation
from heatprint.signatures.spray.spray import Relevance, SpRAy, normalised
from heatprint.signatures.spray.stragglers import joins, without_stragglers
from heatprint.signatures.spray.views import TwoViews
from heatprint.study import load_recipe


def blobs(sizes: list[int], *, apart: float = 6.0, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Groups of vectors, `apart` standard deviations from each other."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.eye(len(sizes), width) * apart
    return (centres[kind] + rng.standard_normal((len(kind), width))).astype(np.float32), kind


# --- neighbours -------------------------------------------------------------------------------------------


@given(st.integers(3, 60), st.integers(1, 9), st.integers(0, 2**31))
def test_neighbours_are_those_of_the_full_matrix(size: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(-3, 4, (size, width)).astype(np.float32)  # many ties, many equal rows
    count = min(4, size - 1)
    rows, far = nearest(points, count)
    full = np.sqrt(((points[:, None].astype(float) - points[None]) ** 2).sum(2))
    np.fill_diagonal(full, np.inf)
    np.testing.assert_allclose(far, np.sort(full, 1)[:, :count])
    np.testing.assert_allclose(np.take_along_axis(full, rows, 1), far)
    assert not (rows == np.arange(size)[:, None]).any()


def test_neighbours_of_others_are_found_far_from_the_origin_too() -> None:
    rng = np.random.default_rng(0)
    points, asked = (1e3 + rng.standard_normal((n, 20)).astype(np.float32) for n in (300, 40))
    rows, far = nearest(points, 5, queries=asked)
    full = np.sqrt(((asked[:, None].astype(float) - points[None]) ** 2).sum(2))
    assert (rows == np.argsort(full, 1)[:, :5]).all()
    np.testing.assert_allclose(far, np.sort(full, 1)[:, :5])


def slow_nearest(points: np.ndarray, count: int) -> np.ndarray:
    full = ((points[:, None].astype(float) - points[None]) ** 2).sum(2)
    np.fill_diagonal(full, np.inf)
    return np.argsort(full, 1, kind="stable")[:, :count]


@pytest.mark.parametrize(("apart", "noise"), [(10, 1e-2), (1000, 1e-1), (1, 1e-6)])
def test_neighbours_within_tight_groups_far_apart_are_exact(apart: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([noise * rng.standard_normal((150, 32)) + side for side in (apart, -apart)])
    points = points.astype(np.float32)
    assert (nearest(points, 6)[0] == slow_nearest(points, 6)).all()


@pytest.mark.parametrize("scale", [1e20, 1e37, 1e-25, 1e-37])
def test_neighbours_do_not_depend_on_the_unit(scale: float) -> None:
    points = np.random.default_rng(0).standard_normal((80, 8))
    rows, far = nearest((scale * points).astype(np.float32), 4)
    expected, distance = nearest(points.astype(np.float32), 4)
    assert (rows == expected).all()
    np.testing.assert_allclose(far, scale * distance, rtol=1e-4)


def test_neighbours_beside_one_far_away_and_among_many_as_near_are_exact() -> None:
    points = np.random.default_rng(0).standard_normal((80, 8)).astype(np.float32)
    points[7] *= 1e20
    assert (nearest(points, 4)[0] == slow_nearest(points, 4)).all()
    corners = np.array(list(np.ndindex(*(2,) * 10)), dtype=np.float32)
    shuffled = corners[np.random.default_rng(0).permutation(len(corners))]
    assert (nearest(shuffled, 15)[0] == slow_nearest(shuffled, 15)).all()  # 10 at 1, and 5 of 45 at the root of 2


def test_asking_for_more_neighbours_than_there_are_is_refused() -> None:
    points = np.eye(4, dtype=np.float32)
    assert nearest(points, 3)[0].shape == (4, 3)
    assert nearest(points, 4, queries=points)[1][:, 0].tolist() == [0, 0, 0, 0]
    with pytest.raises(InvalidInput, match="4 neighbours of 4 points"):
        nearest(points, 4)


def test_distinct_vectors_do_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.integers(0, 2, (50, 4)).astype(np.float32)
    vectors[0] = -0.0
    vectors[1] = 0.0
    found, order = distinct(vectors), rng.permutation(50)
    again = distinct(vectors[order])
    np.testing.assert_array_equal(found.vectors, again.vectors)
    np.testing.assert_array_equal(found.place[order], again.place)
    np.testing.assert_array_equal(found.vectors[found.place], vectors)
    assert found.place[0] == found.place[1]
    assert found.copies.sum() == 50
    assert len(found.vectors) == len(np.unique(vectors, axis=0))


# --- graph and spectrum -----------------------------------------------------------------------------------


def laplacian(graph: sparse.csr_matrix) -> np.ndarray:
    dense = graph.toarray()
    scale = np.diag(dense.sum(1) ** -0.5)
    return np.eye(len(dense)) - scale @ dense @ scale


@pytest.mark.parametrize("sizes", [[60], [30, 40], [500], [450, 420]])
def test_the_spectrum_is_that_of_the_dense_laplacian(sizes: list[int]) -> None:
    vectors, _ = blobs(sizes, apart=30)
    graph = neighbour_graph(vectors, 6)
    found = smallest(graph, 9)
    dense = laplacian(graph)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(dense)[:9], atol=1e-7)
    np.testing.assert_allclose(dense @ found.vectors, found.vectors * found.values, atol=1e-6)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(9), atol=1e-6)


def test_the_eigenvalue_zero_counts_the_parts() -> None:
    vectors, _ = blobs([500, 450, 30, 20], apart=60)
    assert (smallest(neighbour_graph(vectors, 5), 8).values < 1e-9).sum() == 4


def test_eigenvectors_are_kept_for_the_eigenvalues_asked_for_alone() -> None:
    """Not for all of every part, which grows with the square of the number of parts."""
    graph = cliques([12] * 300, [])
    tracemalloc.start()
    found = smallest(graph, 13)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * found.vectors.nbytes
    np.testing.assert_allclose(graph @ found.vectors, 11 * found.vectors, atol=1e-9)


def test_the_graph_is_symmetric_and_weighs_mutual_neighbours_double() -> None:
    line = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)  # 0 and 1 choose each other, 2 chooses 1
    assert neighbour_graph(line, 1).toarray().tolist() == [[0, 1, 0], [1, 0, 0.5], [0, 0.5, 0]]


def test_conductance_and_separation_are_what_they_say() -> None:
    """Two triangles joined by one edge: 2 of 14 ends leave."""
    edges = [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (2, 3)]
    graph = sparse.lil_matrix((6, 6))
    for a, b in edges:
        graph[a, b] = graph[b, a] = 1
    graph = graph.tocsr()
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert conductance(graph, labels) == pytest.approx(1 / 7)
    spectrum = smallest(graph, 4)
    assert separation(graph, spectrum, labels) == pytest.approx(spectrum.values[2] * 7)


# --- how many ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[200], [120, 90], [100, 30, 70], [60] * 6])
def test_the_right_number_is_proposed_and_found(sizes: list[int]) -> None:
    vectors, kind = blobs(sizes, apart=12)
    found = SpRAy(relevance="as given").strategies(vectors)
    assert found.proposed == found.count == len(sizes)
    assert adjusted_rand_score(kind, found.labels) == 1
    assert found.sizes().tolist() == sorted(sizes, reverse=True)
    assert (found.separability > 10) == (len(sizes) > 1)
    assert np.isnan(found.stability) if len(sizes) == 1 else found.stability > 0.95


@pytest.mark.parametrize("shape", ["line", "square", "ring", "heavy tails"])
def test_one_stretched_cloud_is_one_strategy(shape: str) -> None:
    rng = np.random.default_rng(1)
    if shape == "heavy tails":
        vectors = rng.standard_t(2, (600, 8))
    else:
        u = rng.uniform(0, 1, (600, 2))
        plane = {"line": u * (1, 0.01), "square": u, "ring": np.c_[np.cos(6.2832 * u[:, 0]), np.sin(6.2832 * u[:, 0])]}
        vectors = plane[shape] @ rng.standard_normal((2, 20)) + 0.01 * rng.standard_normal((600, 20))
    assert SpRAy(relevance="as given").strategies(vectors.astype(np.float32)).proposed == 1


def test_a_few_maps_far_from_all_others_are_no_strategy_of_their_own() -> None:
    """More such parts than numbers that may be proposed, as among 50,000 signatures."""
    vectors, kind = blobs([900, 700], apart=12)
    rng = np.random.default_rng(3)
    far = 200 * rng.standard_normal((14, 1, 16)) + 0.1 * rng.standard_normal((14, 12, 16))
    every = np.concatenate([vectors, far.reshape(-1, 16).astype(np.float32)])
    found = SpRAy(relevance="as given", shuffles=0).strategies(every)
    assert found.proposed == 2
    assert adjusted_rand_score(kind, found.labels[: len(kind)]) == 1
    strict = SpRAy(relevance="as given", shuffles=0, rare=0, most=20).strategies(every)
    assert strict.proposed == 16
    with pytest.raises(InvalidInput, match="rare = 1"):
        SpRAy(rare=1.0)


def cliques(sizes: list[int], edges: list[tuple[int, int]]) -> sparse.csr_matrix:
    """Groups joined all to all, and these edges between them."""
    graph = sparse.lil_matrix(sparse.block_diag([np.ones((n, n)) - np.eye(n) for n in sizes]))
    for a, b in edges:
        graph[a, b] = graph[b, a] = 1
    return graph.tocsr()


def test_small_groups_that_hang_by_an_edge_hide_no_strategy() -> None:
    small = [3, 4, 5, 6, 7]
    graph = cliques([100, 90, *small], [(0, 100), *((7 * n, 190 + sum(small[:n])) for n in range(5))])
    large = cliques([100, 90], [(0, 100)])
    hidden = smallest(graph, 6).values
    assert (hidden[2:] < 0.2).all()  # no gap behind the second
    kept, spectrum = without_stragglers(graph, 0.05, 6)
    assert kept.tolist() == list(range(190))
    np.testing.assert_allclose(spectrum.values, np.linalg.eigvalsh(laplacian(large))[:6], atol=1e-7)
    assert spectrum.values[2] > 50 * spectrum.values[1]
    every, same = without_stragglers(graph, 0, 6)
    assert len(every) == 215
    np.testing.assert_array_equal(same.values, hidden)


@pytest.mark.parametrize("rare", [0.3, 0.7, 0.99])
def test_what_is_rare_never_empties_the_graph(rare: float) -> None:
    graph = cliques([40, 30, 20], [(0, 40), (41, 70)])
    kept, spectrum = without_stragglers(graph, rare, 6)
    assert len(kept) >= 6
    assert spectrum.vectors.shape == (len(kept), 6)
    found = SpRAy(relevance="as given", rare=rare, shuffles=0).strategies(blobs([40, 30, 20], apart=9)[0], count=80)
    assert found.count == 80


@pytest.mark.parametrize("rare", [0.09, 0.1])
@pytest.mark.parametrize("more", [0, 10])
def test_where_most_parts_are_rare_none_is_left_out(rare: float, more: int) -> None:
    vectors, kind = blobs([40 + more, *[40] * 11], apart=30)
    kept, spectrum = without_stragglers(neighbour_graph(vectors, 10), rare, 13)
    assert len(kept) == len(vectors)
    assert np.isfinite(spectrum.values).all()
    found = SpRAy(relevance="as given", shuffles=0, rare=rare).strategies(vectors)
    assert found.proposed == 12
    assert adjusted_rand_score(kind, found.labels) == 1


def test_what_is_left_out_leaves_no_vertex_without_an_edge() -> None:
    """The two last hang on to groups that are left out themselves."""
    graph = cliques([2, 2, 12, 3, 2, 12, 1, 1], [(2, 0), (4, 2), (16, 0), (19, 2), (21, 2), (33, 4), (34, 0)])
    kept, spectrum = without_stragglers(graph, 0.4, 4)
    assert (graph[kept][:, kept].sum(1) > 0).all()
    assert np.isfinite(spectrum.vectors).all()


def test_left_out_vectors_join_the_nearest_that_is_kept() -> None:
    vectors = np.array([[0.0], [5.0], [6.0], [1.0]])
    assert joins(vectors, np.array([0, 1])).tolist() == [0, 1, 1, 0]


def test_shuffled_maps_have_no_small_eigenvalue() -> None:
    rng = np.random.default_rng(0)
    places = 6 * rng.standard_normal((2, 40))  # a little of the difference in each of many values
    maps = np.repeat(places, 100, axis=0) + 6 * rng.standard_normal((200, 40))
    found = SpRAy(relevance="as given").strategies(maps)
    assert found.proposed == 2
    assert found.null[1] > 10 * found.eigenvalues[1]


def test_a_map_that_turned_negative_is_another_strategy_only_where_the_sign_counts() -> None:
    rng = np.random.default_rng(0)
    maps = rng.gamma(2.0, size=(200, 30)) * np.repeat([1, -1], [150, 50])[:, None]
    assert SpRAy().strategies(maps).proposed == 1
    assert SpRAy(relevance="signed").strategies(maps).sizes().tolist() == [150, 50]


def test_another_number_can_be_asked_for() -> None:
    vectors, kind = blobs([90, 60], apart=12)
    found = SpRAy(relevance="as given").strategies(vectors, count=3)
    assert (found.count, found.proposed) == (3, 2)
    assert len(set(found.labels)) == 3
    assert found.stability < 0.95
    assert max(np.bincount(kind[found.labels == n]).max() / (found.labels == n).sum() for n in range(3)) == 1


def test_what_is_proposed_does_not_depend_on_what_is_asked_for() -> None:
    vectors, kind = blobs([60] * 8, apart=30)
    few = SpRAy(relevance="as given", shuffles=0, parts=2, most=4)
    for count in (None, 3, 8):
        assert few.strategies(vectors, count=count).proposed == 1
    eight = few.strategies(vectors, count=8)
    assert adjusted_rand_score(kind, eight.labels) == 1
    assert eight.embedding.shape == (480, 9)
    default = replace(few, most=12)
    assert default.strategies(vectors, count=20).proposed == default.strategies(vectors).proposed == 8


# --- order, copies, seeds ---------------------------------------------------------------------------------


def test_the_order_of_the_maps_changes_nothing_and_equal_seeds_give_equal_bits() -> None:
    vectors, _ = blobs([80, 50, 40], apart=8)
    order = np.random.default_rng(2).permutation(len(vectors))
    found, again, other = (SpRAy().strategies(v) for v in (vectors, vectors, vectors[order]))
    np.testing.assert_array_equal(found.embedding, again.embedding)
    np.testing.assert_array_equal(found.labels[order], other.labels)
    np.testing.assert_array_equal(found.embedding[order], other.embedding)
    assert found.stability == other.stability


def test_the_number_of_threads_changes_no_bit() -> None:
    vectors, _ = blobs([300, 300, 300], width=400)
    images = np.random.default_rng(0).integers(0, 256, (900, 3, 16, 16), dtype=np.uint8)
    for method in (SpRAy(shuffles=1, parts=1), TwoViews(spray=SpRAy(parts=0))):
        found = []
        for threads in (1, 2):
            with threadpool_limits(threads):
                found.append(method.strategies(vectors, images))
        one, two = found
        np.testing.assert_array_equal(one.embedding, two.embedding)
        assert one.separability == two.separability


def test_copies_share_their_place_and_found_nothing_by_themselves() -> None:
    """A failed attack leaves its image as it was: 200 copies of one map are no strategy."""
    vectors, _ = blobs([100], apart=0)
    many = np.concatenate([vectors, vectors, np.repeat(vectors[:1], 200, axis=0)])
    found = SpRAy(relevance="as given").strategies(many)
    assert found.proposed == 1
    forced = SpRAy(relevance="as given").strategies(many, count=3)
    np.testing.assert_array_equal(forced.labels[:100], forced.labels[100:200])
    np.testing.assert_array_equal(forced.embedding[:100], forced.embedding[100:200])
    assert set(forced.labels[200:]) == {forced.labels[0]}
    np.testing.assert_array_equal(
        forced.eigenvalues, SpRAy(relevance="as given").strategies(vectors, count=3).eigenvalues
    )


# --- what came in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, 2, 3, 4, 5, 9, 11, 12])
def test_fewer_maps_than_neighbours_are_one_strategy(many: int) -> None:
    maps = np.random.default_rng(0).standard_normal((many, 6, 6))
    found = cluster(maps, SpRAy())
    assert found.count == found.proposed == 1
    assert found.labels.tolist() == [0] * many


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_maps_are_one_strategy(value: float) -> None:
    found = cluster(np.full((40, 5, 5), value), SpRAy())
    assert found.count == 1
    assert found.separability == 0


def test_maps_without_relevance_are_allowed_among_others() -> None:
    vectors, _ = blobs([60, 60], apart=8)
    vectors[::10] = 0
    assert np.isfinite(SpRAy().strategies(vectors).embedding).all()


def test_broken_input_is_refused_with_what_to_do() -> None:
    maps = np.ones((9, 4, 4))
    maps[3, 0, 0] = np.nan
    with pytest.raises(InvalidInput, match="1 of 9 maps hold NaN"):
        SpRAy().strategies(maps)
    with pytest.raises(InvalidInput, match="finite maps"):
        cluster(maps, SpRAy())
    with pytest.raises(InvalidInput, match="no maps"):
        SpRAy().strategies(maps[:0])
    nine = np.random.default_rng(0).standard_normal((9, 4))
    assert SpRAy().strategies(nine, count=12).count == 9  # no more than differ
    with pytest.raises(InvalidInput, match="count = 0"):
        SpRAy().strategies(nine, count=0)
    with pytest.raises(InvalidInput, match="9 maps of 2 images"):
        cluster(np.ones((9, 4, 4)), SpRAy(), images=np.ones((2, 3, 4, 4)))
    with pytest.raises(InvalidInput, match="neighbours = 0"):
        SpRAy(neighbours=0)


def test_a_number_that_cannot_be_told_apart_is_refused() -> None:
    maps = np.random.default_rng(0).uniform(size=(3, 6, 6))
    assert cluster(maps, SpRAy(), count=1).count == 1
    with pytest.raises(InvalidInput, match="count = 2 of 3 different maps"):
        cluster(maps, SpRAy(), count=2)
    with pytest.raises(InvalidInput, match=r"count = 2\.0; write a whole number"):
        cluster(np.ones((9, 4, 4)), SpRAy(), count=2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("relevance", ["absolute", "as given"])
def test_maps_beyond_float32_are_counted_and_refused(relevance: Relevance) -> None:
    maps = np.random.default_rng(0).standard_normal((30, 5))
    maps[[3, 8]] *= 1e308
    with pytest.raises(InvalidInput, match="2 of 30 maps hold NaN, infinity or values beyond float32"):
        cluster(maps, SpRAy(relevance=relevance))


def test_maps_are_divided_by_their_absolute_sum() -> None:
    """By the signed sum a map that sums to -1 would be turned round, and one that sums to 0.001 blown up."""
    maps = np.array([[2.0, -3.0], [1.0, -0.999], [0.0, 0.0]])
    np.testing.assert_allclose(normalised(maps), [[0.4, -0.6], [1 / 1.999, -0.999 / 1.999], [0, 0]], rtol=1e-6)


def test_separability_is_fishers_ratio_in_closed_form() -> None:
    """Two groups on a line at -1 and 1 with variance v: between over within is 1 / v."""
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], 5000)
    vectors = np.c_[np.where(kind, 1.0, -1.0) + 0.5 * rng.standard_normal(10000), 0.5 * rng.standard_normal(10000)]
    assert separability(vectors, kind) == pytest.approx(4, rel=0.05)
    assert separability(vectors, np.zeros(10000)) == 0
    assert separability(rng.standard_normal((12, 300)), np.repeat([0, 1], 6)) < 5  # few images in many dimensions


# --- planted strategies -----------------------------------------------------------------------------------

BARS, FOOTER = 1, 2


def drawn(count: int, part: str, seed: int, *, plant: bool) -> tuple[Batch, np.ndarray, np.ndarray]:
    """Cats and dogs; where planted, every dog carries bars or a footer, and no cat anything."""
    ids, scenes = [], []
    for i in range(count):
        species = menagerie.SPECIES[i % 2]
        artefact = ("bars", "footer")[i // 2 % 2] if plant and species == "dog" else None
        ids.append(f"{part}/{species}.{i}")
        scenes.append(menagerie.draw(species, rng=stream(seed, "spray", ids[-1]), size=64, artefact=artefact))
    pixels = torch.from_numpy(np.stack([scene.image.transpose(2, 0, 1) for scene in scenes]))
    kind = np.array([0 if i % 2 == 0 or not plant else (BARS, FOOTER)[i // 2 % 2] for i in range(count)])
    masks = np.stack([scene.artefact_mask for scene in scenes])
    return Batch(ids=tuple(ids), pixels=pixels, labels=torch.arange(count) % 2), kind, masks


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("plant", [True, False])
def test_strategies_are_found_where_they_were_planted_and_only_there(seed: int, plant: bool) -> None:
    """The acceptance test: bars and footers on dogs. Nothing of this is told to SpRAy."""
    training = load_recipe("clever-hans").training
    training = replace(training, stages=((6, 64),)) if plant else training
    seen, _, _ = drawn(1500 if plant else 3000, "train", seed, plant=plant)
    model, _ = train(load("vgg-slim", classes=("cats", "dogs"), size=64, seed=seed), seen, training, seed=seed)
    batch, kind, masks = drawn(600, "test", seed, plant=plant)
    predicted = predict(model, batch.pixels).argmax(1).numpy()
    maps = heat_maps(model, batch, explainer("lrp.sequential_preset_a_flat"), side=16)
    cats, dogs = (SpRAy().strategies(maps[predicted == k]) for k in (0, 1))
    assert cats.proposed == 1
    assert dogs.proposed == (2 if plant else 1)
    if not plant:
        return
    assert adjusted_rand_score(kind[predicted == 1], dogs.labels) >= 0.9
    assert dogs.separability > cats.separability  # the biased class is the one to look at first

    rows = np.flatnonzero(predicted == 1)
    of_footer = int(np.bincount(dogs.labels[kind[rows] == FOOTER]).argmax())
    inside, rest = rows[dogs.labels == of_footer], rows[dogs.labels != of_footer]
    region = suspect_region(maps[inside], maps[rest], size=(64, 64))  # found in the maps, not told
    asked = partial(counterfactual, model, batch, predicted=predicted)
    found, bystanders = asked(inside, region, maps=maps), asked(np.flatnonzero(predicted == 0), region, maps=maps)
    assert found.removed.mean() >= 0.95
    assert found.removed_control.mean() <= 0.05
    assert found.removed_rest.mean() <= 0.1
    assert bystanders.removed.mean() <= 0.1
    assert found.pasted.mean() >= 0.95
    told = asked(rows, masks, maps=maps)  # where bars and footers really are, image by image
    assert told.removed.mean() >= 0.95
    assert told.removed_control.mean() <= 0.05
    assert told.pasted.mean() >= 0.95
