"""Signatures, evaluation and defences, and the size of the house."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from heatprint.attacks import attack
from heatprint.attacks import make as make_attack
from heatprint.core.errors import InvalidInput, UnknownName
from heatprint.core.values import Batch
from heatprint.defences import defend
from heatprint.defences import make as make_defence
from heatprint.evaluation import Arm, attack_summary, evaluate, share
from heatprint.evaluation.straight import stand_in
from heatprint.explainers import explain
from heatprint.explainers import make as make_explainer
from heatprint.models import Training, load, predict, wrap
from heatprint.signatures import EMBEDDERS, embed, sign
from heatprint.signatures import make as make_signature
from heatprint.testing import labelled_batch, small_classifier

SOURCE = Path(__file__).parents[1] / "src" / "heatprint"


def test_files_and_functions_stay_small():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
                length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert length <= 45, f"{path}:{node.lineno} {node.name}: {length} lines"


def test_the_input_signature_is_the_heat_map_and_layers_conserve(small):
    batch = labelled_batch(small)
    seen = explain(small, batch, make_explainer("lrp.sequential_preset_a_flat"))
    whole = sign(small, batch, make_signature("lrp", layer="input"))
    assert whole.ids == batch.ids
    assert np.allclose(whole.vectors, seen.heat.flatten(1).numpy())
    channels = sign(small, batch, make_signature("lrp", layer="body"))
    assert channels.vectors.shape == (8, 8)
    assert np.allclose(channels.vectors.sum(1), seen.totals["body"].numpy(), rtol=1e-4, atol=1e-5)
    last = sign(small, batch, make_signature("lrp", layer="last"))
    assert last.vectors.shape == (8, 32)


def test_signatures_that_cannot_be_are_refused(small):
    with pytest.raises(InvalidInput, match=r"write an 'lrp\.' method"):
        make_signature("lrp", method="gradient")
    with pytest.raises(InvalidInput, match="Layers: last"):
        sign(small, labelled_batch(small), make_signature("lrp", layer="nowhere"))
    with pytest.raises(UnknownName, match="Did you mean 'umap'"):
        EMBEDDERS.make("umpa")


def clusters(seed=0):
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([rng.normal(c, 0.05, (40, 6)) for c in (0, 1, 2)])
    return vectors.astype(np.float32), np.repeat([0, 1, 2], 40)


@pytest.mark.parametrize("name", ["umap", "pca"])
def test_embeddings_are_deterministic_and_keep_neighbourhoods(name):
    vectors, group = clusters()
    method = EMBEDDERS.make(name)
    points = embed(vectors, method)
    assert np.array_equal(points, embed(vectors, method))
    near = np.argsort(((points[:, None] - points[None]) ** 2).sum(2), axis=1)[:, 1:6]
    assert (group[near] == group[:, None]).mean() > 0.97


def test_pca_equals_the_singular_vectors():
    vectors, _ = clusters()
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    _, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points = embed(vectors, EMBEDDERS.make("pca"))
    assert np.allclose(np.linalg.norm(points, axis=0), sizes[:2])


def test_embedding_needs_finite_vectors():
    with pytest.raises(InvalidInput, match="5 of 5 vectors hold NaN"):
        embed(np.full((5, 3), np.nan), EMBEDDERS.make("pca"))


def test_wilson_intervals_in_closed_form():
    z, n, k = 1.959963984540054, 2000, 1716
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(k * (n - k) / n + z * z / 4)
    got = share(k, n)
    assert (got["count"], got["total"], got["share"]) == (1716, 2000, 0.858)
    assert got["low"] == pytest.approx(centre - half, abs=1e-6)
    assert got["high"] == pytest.approx(centre + half, abs=1e-6)
    assert share(0, 0) is None


def test_the_columns_of_an_arm_are_counted_right(small):
    """Against counts done by hand from the logits."""
    batch = labelled_batch(small, 30, wrong=5)
    old = attack(small, batch, make_attack("fgsm", eps="7/255"))
    other = small_classifier(seed=1)
    new = attack(other, batch, make_attack("fgsm", eps="12/255"))
    assert 0 < int(old.success.sum()) < 25
    card = evaluate(Arm(classifier=other, test=batch, old={"f": old}, new={"f": new}, strong=("f", new)))
    guess = predict(other, batch.pixels).argmax(1)
    fooled = old.adversarial.take(old.success.nonzero().squeeze(1))
    static = predict(other, fooled.pixels).argmax(1) == fooled.labels
    right = guess == batch.labels
    column = card["attacks"]["f"]
    assert card["clean"]["count"] == int(right.sum())
    assert (column["static"]["count"], column["static"]["total"]) == (int(static.sum()), int(old.success.sum()))
    assert column["mixture"]["count"] == int(right.sum()) + int(static.sum())
    assert column["mixture"]["total"] == 30 + int(old.success.sum())
    standing = right & (new.logits.argmax(1) == batch.labels)
    assert column["reattacked"]["count"] == card["strong"]["robust"]["count"] == int(standing.sum())
    for number, row in enumerate(card["errors"]["clean"]):
        own = batch.labels == number
        assert row["false_negatives"] == share(int((guess[own] != number).sum()), int(own.sum()))
        assert row["false_positives"] == share(int((guess[~own] == number).sum()), int((~own).sum()))


class Brightness(torch.nn.Module):
    """Says the second class to images whose mean is above one half."""

    def forward(self, images):
        mean = images.mean((1, 2, 3)) - 0.5
        return torch.stack([-mean, mean], 1)


def hand_made(classifier, batch, fell, count):
    """An attack on the first `count` dark images, of which the rows `fell` became bright."""
    some, rows = batch.take(range(count)), torch.tensor([row in fell for row in range(count)])
    pixels = torch.where(rows.view(-1, 1, 1, 1), 255 - some.pixels, some.pixels)
    nothing = attack(classifier, some, make_attack("noise", eps=0.0))
    logits = predict(classifier, pixels)
    return replace(
        nothing, adversarial=some.with_pixels(pixels), logits=logits, success=logits.argmax(1) != some.labels
    )


def test_the_worst_case_is_per_image_over_the_images_of_all_attacks():
    dark = wrap(Brightness(), classes=("dark", "bright"), size=8)
    pixels = torch.full((20, 3, 8, 8), 50, dtype=torch.uint8)
    batch = Batch(ids=tuple(f"{row}" for row in range(20)), pixels=pixels, labels=torch.zeros(20, dtype=torch.long))
    batch.labels[10] = 1  # misclassified: stands nowhere
    new = {"a": hand_made(dark, batch, (0, 1), 20), "b": hand_made(dark, batch, (1, 2), 12)}
    new["noise"] = hand_made(dark, batch, (3, 4), 5)
    arm = Arm(classifier=dark, test=batch, old={}, new=new, strong=("s", hand_made(dark, batch, (5,), 16)),
              adaptive=hand_made(dark, batch, (6, 14), 16), controls={"noise"})  # fmt: skip
    card = evaluate(arm)
    assert card["strong"]["robust"] == share(14, 16)
    assert card["adaptive"] == {"attack": "s", "standing": share(12, 16)}
    assert card["worst"] == {"attacks": ["a", "b", "s"], "standing": share(12 - 6, 12)}  # 0, 1, 2, 5, 6 and 10 fall
    without = evaluate(replace(arm, adaptive=None))
    assert (without["adaptive"], without["worst"]["standing"]) == (None, share(12 - 5, 12))
    assert evaluate(replace(arm, new={}, strong=None, adaptive=None))["worst"] is None
    assert evaluate(replace(arm, strong=None, adaptive=None))["strong"] is None


@pytest.mark.parametrize("seed", [0, 1])
def test_no_column_is_below_the_worst_case(small, seed):
    batch = labelled_batch(small, 24, wrong=4)
    other = small_classifier(seed=seed)
    made = {
        name: attack(other, batch, make_attack(name, eps=f"{9 - 3 * n}/255")) for n, name in enumerate(("fgsm", "pgd"))
    }
    card = evaluate(Arm(classifier=other, test=batch, old=made, new=made, strong=("bim", attack(
        other, batch, make_attack("bim", eps="6/255"))), adaptive=made["pgd"]))  # fmt: skip
    columns = [card["clean"], *(c["reattacked"] for c in card["attacks"].values()), card["strong"]["robust"],
               card["adaptive"]["standing"]]  # fmt: skip
    assert all(card["worst"]["standing"]["count"] <= column["count"] for column in columns)
    assert {column["total"] for column in columns} == {24}
    assert card["adaptive"]["standing"]["count"] <= card["strong"]["robust"]["count"]


@pytest.mark.parametrize(("kind", "blocked"), [("bits", True), ("jpeg", True), ("median", False)])
def test_fronts_without_a_gradient_get_a_stand_in_that_answers_the_same(small, kind, blocked):
    batch = labelled_batch(small, 6)
    safe = defend(small, batch, make_defence("transform", kind=kind))
    before = safe.fingerprint()
    found = stand_in(safe, batch)
    assert (found is not None) == blocked
    assert stand_in(small, batch) is None
    if found is None:
        return
    assert safe.fingerprint() == before
    assert torch.allclose(predict(found, batch.pixels), predict(safe, batch.pixels), atol=1e-4)
    leaf = batch.images.requires_grad_(True)
    slopes = [torch.autograd.grad(one(leaf).square().sum(), leaf)[0].abs().sum() for one in (safe, found)]
    assert slopes[0] == 0 < slopes[1]
    assert stand_in(found, batch) is None


def test_the_paper_s_arithmetic_comes_out():
    """2000 clean + 940 successes that all fool it: 1716 / 2940 = 58.37 %."""
    assert share(1716, 2000 + 940)["share"] == pytest.approx(0.5837, abs=5e-5)


def test_attack_summaries_count_apart_what_was_wrong_before(small):
    batch = labelled_batch(small, 20, wrong=4)
    hit = attack(small, batch, make_attack("fgsm", eps="12/255"))
    told = attack_summary(hit, small.classes)
    assert (told["images"], told["skipped"], told["success"]["total"]) == (20, 4, 16)
    assert told["success"]["count"] == int(hit.success.sum())
    assert sum(told["step"]["histogram"].values()) == 16
    assert told["forwards"] == 16 * 13


def test_retraining_learns_the_old_adversarials_and_leaves_the_original(small):
    from heatprint.data.sources import draw_batch

    data = draw_batch(24, "training_set", size=48, seed=0)
    start = load("vgg-slim", classes=("cats", "dogs"), size=48, seed=0)
    labels = predict(start, data.pixels).argmax(1)
    data = type(data)(ids=data.ids, pixels=data.pixels, labels=labels)
    hits = {"fgsm": attack(start, data, make_attack("fgsm", eps="4/255"))}
    before = start.digest
    recipe = Training(stages=((3, 48),), lr=1e-3, batch=8)
    safe = defend(start, data, make_defence("retrain", attacks=["fgsm"], training=recipe), attacked=hits, name="x")
    control = defend(start, data, make_defence("retrain", training=recipe), name="control")
    assert start.digest == before
    assert len({safe.digest, control.digest, before}) == 3
    assert (safe.name, control.name) == ("x", "control")
    with pytest.raises(InvalidInput, match="learns from pgd, which was not given; given: fgsm"):
        defend(start, data, make_defence("retrain", attacks=["pgd"], training=recipe), attacked=hits)


def test_the_lazy_top_level_has_what_its_stub_says():
    import heatprint as hp

    stub = (SOURCE / "__init__.pyi").read_text()
    names = [line.rpartition(" ")[2] for line in stub.splitlines() if line.startswith("from")]
    assert len(names) > 10
    for name in names:
        assert getattr(hp, name) is not None
    assert torch.equal(hp.Batch(ids=(), pixels=torch.zeros(0, 3, 2, 2).byte(), labels=torch.zeros(0).long()).labels,
                       torch.zeros(0).long())  # fmt: skip
