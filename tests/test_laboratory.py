"""The live laboratory: each answer is the one that the rooms below give, and a stored image finds its own place."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from heatprint import detectors
from heatprint.attacks import ATTACKS, attack, make
from heatprint.attacks.vulnerability import pixel_reach
from heatprint.core.errors import InvalidInput, StoreError, UnknownName
from heatprint.core.goals import untargeted
from heatprint.core.store import Store
from heatprint.core.values import Batch
from heatprint.data.sources import load_dataset
from heatprint.detectors import Examples, Identifier
from heatprint.explainers import EXPLAINERS, explain
from heatprint.live.laboratory import Laboratory
from heatprint.live.offered import OFFERED, with_own
from heatprint.live.place import StoredMap
from heatprint.live.searches import SEARCHES, Cancelled
from heatprint.live.specimen import one_thread
from heatprint.models import Training, load, predict, save, train
from heatprint.runs import parts
from heatprint.signatures import EMBEDDERS, SIGNERS, sign
from heatprint.study.engines import Local
from heatprint.study.explaining import signed
from heatprint.study.parts import Workshop
from heatprint.study.places import measure_places
from heatprint.testing import labelled_batch, small_classifier

SIZE = 32
SETTINGS = {"layer": "last", "explained": "contrast"}  # other than a signer's own
FAMILIES = ("undo", "margin")


@pytest.fixture(scope="module", autouse=True)
def alone():
    """All images here are small; see `one_thread`."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def drawn():
    return load_dataset("menagerie", size=SIZE, train=120, test=60)


@pytest.fixture(scope="module")
def images(drawn):
    return drawn.test


@pytest.fixture(scope="module")
def classifier(drawn):
    """Trained for a moment: a fresh one answers the same class to everything."""
    fresh = load("vgg-slim", classes=drawn.classes, size=SIZE, seed=0).named("clear")
    return train(fresh, drawn.train, Training(stages=((3, SIZE),), lr=3e-3), seed=0)[0]


@pytest.fixture(scope="module")
def fallen(classifier, images):
    """Each image attacked as what it is taken for, so that no one is left out."""
    answered = predict(classifier, images.pixels).argmax(1)
    return attack(classifier, replace(images, labels=answered), make("pgd", eps="16/255", steps=10))


@pytest.fixture(scope="module")
def run(classifier, images, fallen, tmp_path_factory):
    """A run folder with all that the laboratory reads: model, recipe, map, detector, identifier."""
    folder = tmp_path_factory.mktemp("lab") / "run"
    store = Store(folder)
    pca = EMBEDDERS.make("pca")
    sets = {"clean": images, "pgd": fallen.adversarial.take(fallen.success.nonzero().squeeze(1))}
    with store.writing():
        shop, signer = Workshop(store=store, engine=Local(1)), SIGNERS.make("lrp", **SETTINGS)
        known = {name: signed(shop, f"signatures/{name}", classifier, batch, signer) for name, batch in sets.items()}
        places = measure_places(classifier.classes, sets, known, {"umap": pca, "pca": pca}, seed=0)
        store.memo("global", 0, "key", lambda: places)
    save(classifier, folder / "models" / "clear")
    recipe = {"map": {"signature": SETTINGS}, "explainer": {"method": "lrp.epsilon", "settings": {"epsilon": 0.5}}}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    _fit(classifier, fallen, folder / "forensics" / "fitted")
    return folder


def _fit(classifier, fallen, folder):
    """Detector and identifier, learned from half of the pairs and calibrated on the others."""
    clean, count = fallen.clean, len(fallen.clean)
    known = Examples(
        sources=clean.ids * 2, pixels=torch.cat([clean.pixels, fallen.adversarial.pixels]),
        labels=clean.labels.repeat(2), kinds=("clean",) * count + ("pgd",) * count,
        names=("clean",) * count + ("pgd",) * count, attacked=np.arange(2 * count) >= count,
    )  # fmt: skip
    half = [known.take(np.flatnonzero(np.arange(2 * count) % 2 == odd)) for odd in (0, 1)]
    method = detectors.make("heat-print", families=FAMILIES, learner="logistic")
    detector = detectors.fit(classifier, half[0], method, name="heat-print")
    usual = half[1].pixels[torch.from_numpy(~half[1].attacked)]
    detector.calibrate(detector.score(classifier, usual), fpr=0.1).save(folder)
    Identifier(families=FAMILIES, learner="logistic").fit(classifier, *half).save(folder)


@pytest.fixture(scope="module")
def lab(run):
    return Laboratory.open(run)


@pytest.fixture(scope="module")
def bare():
    """Only a classifier, of three classes."""
    return Laboratory(classifier=small_classifier(size=SIZE))


@pytest.fixture(scope="module")
def specimen(bare):
    """An image that the bare laboratory's classifier gets right, and its class."""
    batch = labelled_batch(bare.classifier, 1, seed=3)
    return batch.pixels[0].numpy(), int(batch.labels[0])


# --- look -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [one.name for one in OFFERED])
def test_each_explainer_that_is_offered_is_registered_and_answers(name, bare, specimen):
    assert name in EXPLAINERS.names()
    seen = bare.look(specimen[0], method=name)
    assert seen.heat.shape == (SIZE, SIZE)
    assert seen.heat.dtype == np.float32
    assert np.isfinite(seen.heat).all()
    assert seen.heat.any()
    assert seen.target == seen.predicted == specimen[1]


def test_a_look_is_what_prediction_and_explanation_say(bare, specimen):
    pixels, _ = specimen
    batch = Batch(ids=("other",), pixels=torch.from_numpy(pixels)[None], labels=torch.tensor([0]))
    for target in range(3):
        seen = bare.look(pixels, method="lrp.z", target=target)
        wanted = explain(bare.classifier, batch, EXPLAINERS.make("lrp.z"), target=torch.tensor([target]))
        np.testing.assert_allclose(seen.heat, wanted.heat[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(seen.probabilities, predict(bare.classifier, batch.pixels)[0].softmax(0), rtol=1e-5)
        assert seen.target == target
        assert seen.seconds > 0
    assert bare.explainers() == [(one.name, one.title) for one in OFFERED]


def test_the_explainer_of_the_run_comes_first_and_keeps_its_settings(lab, images):
    assert lab.explainers()[0][0] == "lrp.epsilon"
    batch = images.take([0])
    own = explain(lab.classifier, batch, EXPLAINERS.make("lrp.epsilon", epsilon=0.5))
    np.testing.assert_allclose(lab.look(batch.pixels[0].numpy(), method="lrp.epsilon").heat, own.heat[0], atol=1e-5)
    names = [one.name for one in with_own("gradient", {})]
    assert names[0] == "gradient"
    assert sorted(names) == sorted(one.name for one in OFFERED)


def test_what_cannot_be_answered_is_refused(bare, specimen):
    pixels, label = specimen
    with pytest.raises(UnknownName, match="Did you mean 'gradient'"):
        bare.look(pixels, method="gradiant")
    with pytest.raises(InvalidInput, match="classes 0 to 2"):
        bare.look(pixels, method="gradient", target=3)
    for wrong in (pixels / 255, pixels[:, :-1], pixels[None]):
        with pytest.raises(InvalidInput, match=r"uint8 \[3, 32, 32\]"):
            bare.look(wrong, method="gradient")
    with pytest.raises(InvalidInput, match="0 to 255"):
        bare.gain(pixels, label, 256)
    with pytest.raises(InvalidInput, match="class -1"):
        bare.reach(pixels, -1)
    with pytest.raises(InvalidInput, match="one gain or more"):
        bare.curve(pixels, label, [])
    with pytest.raises(UnknownName, match="one-pixel"):
        bare.search(pixels, label, "one_pixel")


# --- the ramp ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [0, 1, 7, 40])
def test_a_gain_is_what_fgsm_makes_of_it(gain, bare):
    batch = labelled_batch(bare.classifier, 4, seed=5)
    for row in range(len(batch)):
        one = batch.take([row])
        wanted = attack(bare.classifier, one, make("fgsm", eps=f"{gain}/255", ramp=False)).adversarial.pixels[0]
        found = bare.gain(one.pixels[0].numpy(), int(one.labels[0]), gain)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, wanted)


def test_the_ramp_of_the_attack_stops_on_an_image_of_this_ramp(linear):
    room, batch = Laboratory(classifier=linear), labelled_batch(linear, 4)
    result = attack(linear, batch, make("fgsm", eps="64/255"))
    assert result.success.all()
    for row in range(4):
        made = room.gain(batch.pixels[row].numpy(), int(batch.labels[row]), int(result.step[row]))
        np.testing.assert_array_equal(made, result.adversarial.pixels[row])


def test_the_direction_is_asked_for_once(specimen):
    pixels, label = specimen
    fresh = Laboratory(classifier=small_classifier(size=SIZE))
    asked = []
    hook = fresh.classifier.network.register_forward_hook(lambda *args: asked.append(1))
    try:
        for gain in (3, 1, 3):
            fresh.gain(pixels, label, gain)
        assert len(asked) == 1
        fresh.gain(pixels, (label + 1) % 3, 3)
        changed = pixels.copy()
        changed[0, 0, 0] ^= 1
        fresh.gain(changed, label, 3)
        assert len(asked) == 3
    finally:
        hook.remove()


def test_a_curve_follows_the_gains(bare, specimen):
    pixels, label = specimen
    gains = [0, 2, 9]
    found = bare.curve(pixels, label, gains)
    alone = [bare.look(bare.gain(pixels, label, g), method="gradient").probabilities for g in gains]
    np.testing.assert_allclose(found, alone, rtol=1e-4)
    assert found.dtype == np.float32


# --- reach ------------------------------------------------------------------------------------------------


def test_the_reach_of_a_linear_classifier_is_that_of_every_colour_tried(linear):
    """There the first order is all there is; a corner of the colour cube is always best."""
    room = Laboratory(classifier=linear)
    batch = labelled_batch(linear, 3, seed=2)
    side = linear.size
    corners = torch.tensor([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], dtype=torch.uint8)
    for row in range(len(batch)):
        pixels, label = batch.pixels[row], int(batch.labels[row])
        share, colours = room.reach(pixels.numpy(), label)
        tried = pixels.repeat(side * side * 8, 1, 1, 1).view(side * side, 8, 3, side, side)
        for place in range(side * side):
            tried[place, :, :, place // side, place % side] = corners
        goal = untargeted(torch.tensor([label]))
        margin = float(-goal.margin(predict(linear, pixels[None])))
        every = -untargeted(torch.full((side * side * 8,), label)).margin(predict(linear, tried.flatten(0, 1)))
        fall, best = ((margin - every.view(-1, 8)) / margin).max(1)
        np.testing.assert_allclose(share.ravel(), fall, atol=2e-4)
        np.testing.assert_array_equal(colours.reshape(3, -1).T, corners[best])


def test_the_largest_reach_is_the_one_that_ranks_images(bare):
    batch = labelled_batch(bare.classifier, 4, seed=1, wrong=1)
    whole = pixel_reach(bare.classifier, batch)
    for row in range(len(batch)):
        share, colours = bare.reach(batch.pixels[row].numpy(), int(batch.labels[row]))
        np.testing.assert_allclose(share.max(), whole[row], rtol=1e-4)
        assert colours.shape == (3, SIZE, SIZE)
    assert whole[0] == np.inf


# --- searches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", SEARCHES, ids=lambda one: one.name)
def test_each_search_runs_and_tells_how_far_it_is(search, bare, specimen):
    assert search.attack in ATTACKS.names()
    pixels, label = specimen
    told = []
    found, success, queries = bare.search(pixels, label, search.name, lambda *args: told.append(args))
    assert found.dtype == np.uint8
    assert queries <= search.queries
    answered = bare.look(found, method="gradient").predicted
    assert success == (answered != label)
    assert told
    assert all(0 <= done <= total == search.queries and isinstance(note, str) for done, total, note in told)
    assert told[-1][0] == queries
    again = bare.search(pixels, label, search.name)
    np.testing.assert_array_equal(again.pixels, found)


def test_searches_by_gradient_find_what_there_is(linear):
    room, batch = Laboratory(classifier=linear), labelled_batch(linear, 1)
    pixels, label = batch.pixels[0].numpy(), int(batch.labels[0])
    for name in ("pgd", "deepfool", "ddn", "jsma", "sigma-zero"):
        found = room.search(pixels, label, name)
        assert found.success, name
        assert (found.pixels != pixels).any()


def test_a_search_of_an_image_that_is_wrong_already_is_refused(bare, specimen):
    pixels, label = specimen
    with pytest.raises(InvalidInput, match="already"):
        bare.search(pixels, (label + 1) % 3, "pgd")


def test_a_search_is_cancelled_by_its_progress(bare, specimen):
    def progress(done, total, note=""):
        raise Cancelled("enough")

    for name in ("one-pixel", "pgd", "square"):
        with pytest.raises(Cancelled, match="enough"):
            bare.search(*specimen, name, progress)
    assert bare.search(*specimen, "noise").queries == 0  # the next one may begin


def test_a_look_waits_for_a_search(bare, specimen):
    """While torch traces a network, calls in other threads are traced, too; so nobody else may call it."""
    pixels, label = specimen
    looked = threading.Event()

    def look():
        bare.look(pixels, method="gradient")
        looked.set()

    with ThreadPoolExecutor(1) as pool:
        asked = []

        def progress(done, total, note=""):
            asked.append(pool.submit(look))
            assert not looked.wait(0.2)

        bare.search(pixels, label, "deepfool", progress)
        assert asked
    assert looked.is_set()


# --- judge ------------------------------------------------------------------------------------------------


def test_a_verdict_is_the_detector_s_and_the_identifier_s(lab, fallen):
    flagged = []
    for pixels in (*fallen.adversarial.pixels[:8], *fallen.clean.pixels[:8]):
        judged = lab.judge(pixels.numpy())
        flagged.append(judged.flagged)
        score = lab.detector.score(lab.classifier, pixels[None])
        assert judged.score == pytest.approx(score[0], rel=1e-3, abs=1e-4)
        assert judged.threshold == lab.detector.thresholds[0.1]
        assert judged.flagged == (judged.score > judged.threshold)
        if judged.flagged:
            said = lab.identifier.identify(lab.classifier, pixels[None])
            assert (judged.algorithm, judged.family) == (said.name[0], said.family[0])
            assert judged.probability == pytest.approx(said.probabilities[0].max(), abs=1e-3)
            assert judged.credibility == pytest.approx(said.credibility[0], abs=0.05)
            assert judged.unknown == (judged.credibility <= 0.05)
        else:
            assert judged.algorithm is judged.probability is judged.credibility is None
    assert any(flagged)
    assert not all(flagged)


def test_a_pixel_that_was_planted_is_found_and_repaired(linear):
    room, found = Laboratory(classifier=linear), 0
    for grey in (100, 120, 126, 129, 140, 160):
        plain = np.full((3, linear.size, linear.size), grey, dtype=np.uint8)
        own = room.look(plain, method="gradient").predicted
        assert room.judge(plain).restored_place is None
        share, colours = room.reach(plain, own)
        row, column = np.unravel_index(int(share.argmax()), share.shape)
        planted = plain.copy()
        planted[:, row, column] = colours[:, row, column]
        judged, fell = room.judge(planted), room.look(planted, method="gradient").predicted != own
        assert fell == (share.max() > 1)
        assert judged.restored_place == ((row, column) if fell else None)
        assert judged.restored_label == (own if fell else None)
        found += fell
    assert 1 <= found <= 5


def test_nothing_is_said_where_nothing_was_learned(bare, specimen):
    judged = bare.judge(specimen[0])
    assert judged.score is judged.flagged is judged.algorithm is judged.unknown is None
    assert bare.place(specimen[0]) is None


def test_a_detector_without_a_threshold_says_nothing(lab, images):
    mute = replace(lab, detector=replace(lab.detector, thresholds={}))
    assert mute.judge(images.pixels[0].numpy()).flagged is None


# --- place ------------------------------------------------------------------------------------------------


def test_a_stored_image_gets_its_own_signature_back(lab, images, fallen, run):
    stored, rows = lab.stored, Store(run).read("global", 0).rows
    order = {key: row for row, key in enumerate(zip(rows["kind"], rows["id"], strict=True))}
    for kind, batch in (("clean", images), ("pgd", fallen.adversarial)):
        for at, one in enumerate(batch.ids[:20]):
            if (kind, one) not in order:  # the attack failed
                continue
            row = order[kind, one]
            found = lab.place(batch.pixels[at].numpy())
            assert found.exact
            assert found.neighbours[0][0] == row
            assert found.neighbours[0][1] <= 1e-5 * np.linalg.norm(stored.vectors.rows(row, row + 1))
            np.testing.assert_array_equal([found.x, found.y, found.px, found.py], stored.points[row])


def test_another_image_lies_between_its_neighbours(lab, images):
    pixels = images.pixels[0].numpy().copy()
    pixels[:, 4:12, 4:12] ^= 64
    found = lab.place(pixels)
    rows, distances = (np.array(part) for part in zip(*found.neighbours, strict=True))
    assert not found.exact
    assert len(set(rows.tolist())) == 10
    assert (np.diff(distances) >= 0).all()
    near = lab.stored.points[rows]
    place = np.array([found.x, found.y, found.px, found.py])
    assert (place >= near.min(0)).all()
    assert (place <= near.max(0)).all()
    np.testing.assert_allclose(place, (near / distances[:, None]).sum(0) / (1 / distances).sum())
    alone = Batch(ids=("x",), pixels=torch.from_numpy(pixels)[None], labels=torch.tensor([0]))
    vector = sign(lab.classifier, alone, SIGNERS.make("lrp", **SETTINGS)).vectors
    every = np.linalg.norm(lab.stored.vectors.rows(0, 10**9).astype(float) - vector, axis=1)
    np.testing.assert_allclose(distances, np.sort(every)[:10], rtol=1e-5)
    np.testing.assert_allclose(every[rows], distances, rtol=1e-5)


def test_blocks_of_a_map_give_the_neighbours_of_the_whole(lab, images, monkeypatch):
    whole = lab.place(images.pixels[3].numpy())
    monkeypatch.setattr(parts, "PIECE", 4 * lab.stored.vectors.shape[1] * 7)  # seven rows at a time
    assert len(list(lab.stored.vectors.blocks())) == -(-len(lab.stored.vectors) // 7)
    assert lab.place(images.pixels[3].numpy()) == whole


def test_a_signature_of_the_other_settings_would_be_noticed(lab, images):
    """The test above can fail: what the signer's own settings give lies elsewhere."""
    usual = replace(lab, stored=replace(lab.stored, signer=SIGNERS.make("lrp", layer="last")))
    assert not usual.place(images.pixels[0].numpy()).exact


# --- the run ----------------------------------------------------------------------------------------------


def test_a_run_may_hold_a_model_alone(classifier, tmp_path):
    save(classifier, tmp_path / "run" / "models" / "clear")
    room = Laboratory.open(tmp_path / "run")
    assert room.detector is room.identifier is room.stored is None
    assert (room.size, room.classes) == (SIZE, ("cats", "dogs"))
    assert room.offered == OFFERED
    with pytest.raises(StoreError, match="no model"):
        Laboratory.open(tmp_path)


def test_a_map_of_unknown_making_is_refused(run, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("global", "schema.json"):
        (tmp_path / "run" / name).symlink_to(run / name)
    (tmp_path / "run" / "recipe.json").write_text('{"map": 1}')
    with pytest.raises(StoreError, match="how the map's signatures were made"):
        StoredMap.load(tmp_path / "run")


def test_the_number_of_threads_is_given_back(bare, specimen):
    torch.set_num_threads(2)
    try:
        bare.look(specimen[0], method="gradient")
        with pytest.raises(UnknownName):
            bare.look(specimen[0], method="none")
        bare.search(*specimen, "noise")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_many_threads_get_the_answers_of_one(bare):
    batch = labelled_batch(bare.classifier, 8, seed=6)
    asked = [(batch.pixels[row].numpy(), int(batch.labels[row])) for row in range(8)] * 3

    def answers(one):
        pixels, label = one
        moved = bare.gain(pixels, label, 5)
        return moved, bare.look(moved, method="lrp.z").heat, bare.reach(pixels, label)[0]

    alone = [answers(one) for one in asked[:8]] * 3
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(answers, asked))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
