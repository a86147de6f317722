"""The closed loop: advice, routing, the judge of both, and the command that goes from attack to defence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from heatprint.cli import app
from heatprint.core.errors import InvalidInput, StoreError, UnknownName
from heatprint.core.store import Store
from heatprint.defences.advice import Cost, advise, shares_of
from heatprint.defences.route import Router, restored
from heatprint.defences.worth import Worth
from heatprint.detectors.features.table import measure
from heatprint.detectors.locator import locate
from heatprint.evaluation.routing import Answers, adviser_cells, evidence, routed_table
from heatprint.models import wrap
from heatprint.study.candidates import Candidate, made, read_candidates
from heatprint.study.progress import SILENT
from heatprint.testing import labelled_batch

SHARES = st.floats(0, 1, allow_nan=False)
NAMES = ("clear", "median", "hardened")


# --- advice -----------------------------------------------------------------------------------------------


def costs(clean: list[float], seconds: tuple[float, ...] = (1.0, 1.0, 1.0)) -> dict[str, Cost]:
    return {name: Cost(clean=c, seconds=s) for name, c, s in zip(NAMES, clean, seconds, strict=True)}


@given(st.lists(SHARES, min_size=3, max_size=3), st.lists(SHARES, min_size=3, max_size=3), SHARES)
def test_the_first_choice_is_the_best_of_a_slow_search_up_to_half_a_point(attacked, clean, prior):
    advice = advise(dict(zip(NAMES, attacked, strict=True)), costs(clean), plain="clear", prior=prior)
    slow = [prior * a + (1 - prior) * c for a, c in zip(attacked, clean, strict=True)]
    assert sorted(one.remedy for one in advice) == sorted(NAMES)
    assert advice[0].expected >= max(slow) - 0.005 - 1e-9
    for one in advice:
        at = NAMES.index(one.remedy)
        assert one.expected == pytest.approx(slow[at])
        assert one.gain == pytest.approx(attacked[at] - attacked[0])
        assert one.loss == pytest.approx(clean[0] - clean[at])


def test_of_equally_good_remedies_the_faster_comes_first_and_a_better_one_before_both():
    same = {"clear": 0.0, "median": 0.8, "hardened": 0.804}
    order = [one.remedy for one in advise(same, costs([0.9] * 3, (1.0, 2.0, 3.0)), plain="clear")]
    assert order == ["median", "hardened", "clear"]
    better = {"clear": 0.0, "median": 0.8, "hardened": 0.9}
    assert advise(better, costs([0.9] * 3, (1.0, 2.0, 3.0)), plain="clear")[0].remedy == "hardened"
    assert advise(better, costs([0.9] * 3, (1.0, 2.0, 3.0)), plain="clear")[0].slower == 3


def test_advice_without_sense_is_refused():
    known = dict.fromkeys(NAMES, 0.5)
    with pytest.raises(InvalidInput, match="prior"):
        advise(known, costs([0.9] * 3), plain="clear", prior=1.5)
    with pytest.raises(InvalidInput, match="worth and cost"):
        advise({"clear": 1.0}, costs([0.9] * 3), plain="clear")
    with pytest.raises(InvalidInput, match="worth and cost"):
        advise(known, costs([0.9] * 3), plain="none")


def test_a_folder_is_what_its_images_are_on_average():
    found = np.array([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]])
    assert shares_of(("pgd", "square"), found) == pytest.approx({"pgd": 0.6, "square": 0.4})
    assert shares_of(("pgd", "square"), found[:0]) == {}


# --- routing ----------------------------------------------------------------------------------------------

SIZE = 24


class Bright(nn.Module):
    """Which of two classes an image is of, by its brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        margin = self.scale * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-margin, margin], 1)


def plain(levels: list[int]) -> torch.Tensor:
    """Images of one grey each."""
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, SIZE, SIZE)


@pytest.fixture(scope="module")
def bright():
    return wrap(Bright(), classes=("dark", "bright"), size=SIZE)


@pytest.fixture(scope="module")
def worth(bright) -> Worth:
    """Near the border (grey) "median" is right, far from it "hardened", and "clear" never."""
    levels = [(row * 41) % 256 for row in range(240)]
    near = np.array([abs(level - 128) < 60 for level in levels])
    right = {"clear": np.zeros(240, dtype=bool), "median": near, "hardened": ~near}
    table = measure(bright, plain(levels), ("margin",))
    return Worth.fit(table, right, ["clean"] * 120 + ["pgd"] * 120, np.arange(240) >= 120,
                     classifier=bright.digest, families=("margin",))  # fmt: skip


def said(label: int):
    return lambda pixels: torch.full((len(pixels),), label)


REMEDIES = {"clear": said(0), "median": said(1), "hardened": said(0)}


def test_every_image_goes_to_the_remedy_that_is_right_about_such_images(bright, worth):
    found = Router(classifier=bright, remedies=REMEDIES, worth=worth, asked=1).answer(plain([120, 10, 140, 250]))
    assert found.remedy == ("median", "hardened", "median", "hardened")
    assert found.labels.tolist() == [1, 0, 1, 0]
    assert (found.sure > 0.9).all()
    nothing = Router(classifier=bright, remedies=REMEDIES, worth=worth).answer(plain([]))
    assert nothing.remedy == ()


def test_all_who_are_asked_vote_and_who_is_always_wrong_speaks_for_the_other_class(bright, worth):
    router = Router(classifier=bright, remedies=REMEDIES, worth=worth)
    found = router.decide(np.array([[0.62, 0.62, 0.7], [0.1, 0.5, 0.5], [0.5, 0.5, 0.5]]),
                          np.array([[0, 0, 1], [0, 1, 1], [1, 1, 1]]))  # fmt: skip
    assert found.labels.tolist()[:2] == [0, 1]
    odds = (0.62 / 0.38) ** 2 / (0.7 / 0.3)  # two weaker voices against a stronger one
    assert found.sure[0] == pytest.approx(odds / (1 + odds))
    assert found.sure[1] == pytest.approx(0.9)
    assert found.sure[2] == pytest.approx(0.5)


@given(st.lists(st.tuples(st.lists(SHARES, min_size=3, max_size=3),
                          st.lists(st.integers(0, 1), min_size=3, max_size=3)), min_size=1, max_size=8),
       st.integers(1, 4), SHARES)  # fmt: skip
def test_the_vote_is_that_of_a_slow_count_and_the_doubtful_are_turned_away(bright, worth, told, asked, reject):
    router = Router(classifier=bright, remedies=REMEDIES, worth=worth, asked=asked, reject=reject)
    found = router.decide(np.array([one for one, _ in told]), np.array([said for _, said in told]))
    for label, sure, (known, said) in zip(found.labels.tolist(), found.sure, told, strict=True):
        order = sorted(range(3), key=lambda r, known=known: -known[r])[:asked]
        odds = [1.0, 1.0]
        for r in order:
            chance = min(max(known[r], 0.02), 0.98)
            odds[said[r]] *= chance / (1 - chance)
        chances = [one / sum(odds) for one in odds]
        assert sure == pytest.approx(max(chances))
        if max(chances) < reject - 1e-9:
            assert label == -1
        elif abs(chances[0] - chances[1]) > 1e-9 and max(chances) > reject + 1e-9:
            assert label == chances.index(max(chances))


def test_what_remedies_are_worth_is_kept_and_read_without_anything_that_runs(bright, worth, tmp_path):
    table = measure(bright, plain([5, 100, 130, 200]), ("margin",))
    worth.save(tmp_path)
    again = Worth.load(tmp_path)
    assert again.best(bright, plain([120, 125]))[0] == "median"
    np.testing.assert_array_equal(again.of(table), worth.of(table))
    assert (worth.of(table)[:, 0] == 0).all()  # never right: nothing to learn
    assert worth.usual[1] == pytest.approx(1 - worth.usual[2])
    (tmp_path / "worth.json").write_text("{}")
    with pytest.raises(StoreError):
        Worth.load(tmp_path)
    with pytest.raises(InvalidInput, match="answers of"):
        Worth.fit(table, {"clear": np.ones(3, dtype=bool)}, ["pgd"] * 4, np.ones(4, dtype=bool), classifier="",
                  families=("margin",))  # fmt: skip


def test_a_router_that_cannot_answer_is_refused(bright, worth, small):
    with pytest.raises(InvalidInput, match="hardened, median"):
        Router(classifier=bright, remedies={"clear": said(0)}, worth=worth)
    with pytest.raises(InvalidInput, match="reject"):
        Router(classifier=bright, remedies=REMEDIES, worth=worth, reject=2)
    with pytest.raises(InvalidInput, match="asked"):
        Router(classifier=bright, remedies=REMEDIES, worth=worth, asked=0)
    with pytest.raises(InvalidInput, match="another classifier"):
        Router(classifier=small, remedies=REMEDIES, worth=worth)
    with pytest.raises(InvalidInput):
        Router(classifier=bright, remedies=REMEDIES, worth=worth).answer(plain([1]).float())


def test_a_restored_pixel_answers_as_the_locator_does(bright):
    pixels = plain([60, 190, 120])
    assert torch.equal(restored(bright)(pixels), locate(bright, pixels).label)


# --- the judge --------------------------------------------------------------------------------------------


def history() -> Answers:
    """Four sources; a and b attacked in two ways, c in one, d in none."""
    kinds = ["clean", "clean", "clean, misclassified", "clean", "pgd", "pgd", "pgd, confident", "one-pixel", "noise 2"]
    right = {"clear": [1, 1, 0, 1, 0, 0, 0, 0, 1], "median": [1, 1, 0, 0, 1, 0, 0, 1, 0]}
    return Answers(
        kinds=np.array(kinds), sources=np.array([*"abcd", *"ab", *"a", *"b", *"a"]), labels=np.ones(9, dtype=int),
        attacked=np.array([False] * 4 + [True] * 4 + [False]),
        said={name: np.array(one) for name, one in right.items()},
    )  # fmt: skip


def test_evidence_is_counted_by_kind_and_clean_images_are_one_kind():
    found = evidence(history())
    counts = {
        kind: (row["clear"]["count"], row["median"]["count"], row["clear"]["total"]) for kind, row in found.items()
    }
    assert counts == {"clean": (3, 2, 4), "noise 2": (1, 0, 1), "one-pixel": (0, 1, 1), "pgd": (0, 1, 2),
                      "pgd, confident": (0, 0, 1)}  # fmt: skip


def test_the_union_is_the_worst_case_of_each_source_and_noise_is_no_attack():
    answers = history()
    routed = np.array([1, 1, 0, 1, 1, 1, 1, 1, 0], dtype=bool)
    told = routed_table(answers, routed, np.zeros(9, dtype=bool))
    counts = {name: one["union"]["count"] for name, one in told["systems"].items()}
    assert counts == {"clear": 1, "median": 0, "routed": 3}  # d; none; a, b and d
    assert told["systems"]["routed"]["mean"] == 1
    assert told["systems"]["median"]["mean"] == pytest.approx((1 / 2 + 0 + 1) / 3, abs=1e-6)
    assert told["lead"]["union"]["over"] == "clear"
    assert told["lead"]["union"]["lead"] == pytest.approx(2 / 4)
    assert told["lead"]["union"]["low"] <= 0.5 <= told["lead"]["union"]["high"]
    assert told["systems"]["routed"]["clean"]["count"] == 3


def test_regret_is_what_the_advised_remedy_gives_away_on_the_test_part():
    cells = adviser_cells(history(), {"pgd": "median", "one-pixel": "clear"}, prior=0.5)
    assert [(cell["kind"], cell["images"], cell["hit"]) for cell in cells] == [
        ("pgd", 2, True),
        ("one-pixel", 1, False),
    ]
    pgd, one_pixel = cells
    assert pgd["regret"] == 0  # (1/2 + 2/4) / 2 against (0 + 3/4) / 2
    assert one_pixel["best"] == "median"
    assert one_pixel["regret"] == pytest.approx((1 + 2 / 4) / 2 - (0 + 3 / 4) / 2)
    assert pgd["right"]["count"] == 1


# --- the laboratory ---------------------------------------------------------------------------------------


def test_candidates_are_valid_and_a_mistake_is_told(tmp_path):
    known = read_candidates()
    assert {one.method for one in known} >= {"transform", "denoise", "pgd"}
    assert [one.name for one in read_candidates(only=["jpeg"])] == ["jpeg"]
    with pytest.raises(UnknownName, match="jpge"):
        read_candidates(only=["jpge"])
    file = tmp_path / "candidates.toml"

    def written(text: str) -> Path:
        file.write_text(text)
        return file

    one = '[[candidates]]\nname = "a"\nmethod = "transform"\n'
    with pytest.raises(InvalidInput, match="names one twice"):
        read_candidates(written(one + one))
    for nothing in ("", "[[candidate]]\n", "candidates = 3\n"):
        with pytest.raises(InvalidInput, match=r"one table \[\[candidates\]\]"):
            read_candidates(written(nothing))
    with pytest.raises(InvalidInput, match="Did you mean 'transform'"):
        read_candidates(written(one.replace("transform", "transfrom")))
    with pytest.raises(InvalidInput, match="learns from attacks"):
        read_candidates(written('[[candidates]]\nname = "a"\nmethod = "retrain"\nsettings = { attacks = ["fgsm"] }\n'))
    for name in ("../a", "clear", "clean_control", "rejected", "routed", "restored-pixel", "unbiased"):
        with pytest.raises(InvalidInput, match="names a folder"):
            read_candidates(written(one.replace('"a"', f'"{name}"')))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_candidates(tmp_path / "none.toml")


def test_models_are_made_once_and_what_does_not_fit_is_left_out_and_told(tmp_path):
    from heatprint.models import load, save

    clear = load("vgg-slim", classes=("cats", "dogs"), size=32, seed=0)
    train = labelled_batch(clear)
    store = Store(tmp_path)
    asked = (Candidate(name="median", method="transform"), Candidate(name="mine", method="transform"))
    save(load("vgg-slim", classes=("cats", "dogs"), size=32, seed=1), tmp_path / "models" / "mine")
    save(load("vgg-slim", classes=("a", "b", "c"), size=32, seed=1), tmp_path / "models" / "three")
    for name in ("unbiased", "rejected", "clear"):
        save(clear, tmp_path / "models" / name)
    defended, left_out = made(clear, train, asked, store, seed=0, watch=SILENT)
    assert set(defended) == {"median", "mine"}
    assert set(left_out) == {"three", "mine (asked for)"}
    card = tmp_path / "models" / "median" / "card.json"
    kept = card.stat().st_mtime_ns
    made(clear, train, asked[:1], store, seed=0, watch=SILENT)
    assert card.stat().st_mtime_ns == kept
    weights = tmp_path / "models" / "median" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    (tmp_path / "models" / "mine" / "model.safetensors").write_bytes(b"")
    defended, left_out = made(clear, train, asked[:1], store, seed=0, watch=SILENT)
    assert set(defended) == {"median"}  # made again
    assert left_out["mine"] == "it is damaged"
    other = load("vgg-slim", classes=("cats", "dogs"), size=32, seed=2)
    defended, left_out = made(other, train, (), store, seed=0, watch=SILENT)
    assert "an earlier classifier" in left_out["median"]


def test_without_a_model_or_auto_the_command_says_what_to_do(tmp_path):
    told = CliRunner().invoke(app, ["defend", "--run", str(tmp_path), "--data", "menagerie"])
    assert isinstance(told.exception, InvalidInput)
    assert "--auto" in str(told.exception)
    told = CliRunner().invoke(app, ["defend", "--auto", "--run", str(tmp_path), "--data", "menagerie"])
    assert isinstance(told.exception, StoreError)


@pytest.mark.slow
def test_the_loop_is_closed_from_the_command_line(laboratory, tmp_path, monkeypatch):
    from heatprint.attacks import attack, make
    from heatprint.core.lattice import encode_pngs
    from heatprint.data.sources import load_dataset
    from heatprint.models import load

    monkeypatch.setattr("heatprint.study.counterattack.EVADED", 6)
    common = ["--run", str(laboratory), "--data", "menagerie", "--limit", "160",
              "--trials", str(laboratory / "trials.toml")]  # fmt: skip
    early = CliRunner().invoke(app, ["defend", "--auto", *common, "--with", "median"])
    assert isinstance(early.exception, StoreError)
    assert "detect --benchmark" in str(early.exception)
    built = CliRunner().invoke(app, ["detect", "--benchmark", *common, "--learner", "logistic"], catch_exceptions=False)
    assert built.exit_code == 0, built.output
    other = CliRunner().invoke(app, ["defend", "--auto", *common, "--seed", "1"])
    assert isinstance(other.exception, InvalidInput)
    assert "--limit, --trials and --seed" in str(other.exception)
    asked = ["defend", "--auto", *common, "--with", "median", "--with", "bits", "--images", "10", "--full"]
    first = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    for heading in ("What came in", "Advice", "Attacked anew", "Routing by identified attack",
                    "Past detector and identifier", "The adviser's record", "Evidence"):  # fmt: skip
        assert f"## {heading}" in first.output
    told = json.loads((laboratory / "defence.json").read_bytes())
    assert {"clear", "median", "bits", "routed"} == set(told["anew"])
    assert told["anew"]["bits"]["past gradients"]
    assert not told["anew"]["clear"]["past gradients"]
    for one in told["anew"].values():
        assert (
            one["worst"]["count"] <= min(share["count"] for share in one["attacks"].values()) <= one["clean"]["count"]
        )
        assert one["clean"]["total"] == 10
    assert told["chosen"] in told["anew"]
    assert set(told["evaded"]) == {"joint", "joint, eps 4", "taken for a benign change"}
    assert (laboratory / "models" / "bits" / "card.json").exists()
    page = (laboratory / "defence.html").read_text()
    assert "Past detector and identifier" in page
    assert "http" not in page.replace("http-equiv", "").replace("www.w3.org", "")
    again = CliRunner().invoke(app, asked, catch_exceptions=False)
    second = json.loads((laboratory / "defence.json").read_bytes())
    assert again.exit_code == 0
    assert second == told

    model = load(laboratory / "models" / "clear")
    test = load_dataset("menagerie", size=32, train=8, test=40).test
    hit = attack(model, test, make("bim", eps="8/255"))
    for row in hit.success.nonzero().squeeze(1)[:6].tolist():
        (tmp_path / f"{row}.png").write_bytes(encode_pngs(hit.adversarial.pixels[row : row + 1])[0])
    found = CliRunner().invoke(app, [*asked, "--attacked", str(tmp_path)], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert json.loads((laboratory / "defence.json").read_bytes())["found"]["images"] == 6
