"""The closed loop: advice, routing, the judge of both, and the command that goes from attack to defence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from heatprint.cli import app
from heatprint.core.errors import InvalidInput, StoreError, UnknownName
from heatprint.defences.advice import Evidence, advise, shares_of
from heatprint.defences.route import REJECTED, Router, restored
from heatprint.defences.worth import Worth
from heatprint.detectors.features.table import measure
from heatprint.detectors.locator import locate
from heatprint.evaluation.routing import Answers, adviser_cells, evidence_of, routed_table
from heatprint.models import wrap
from heatprint.study.candidates import read_candidates

KINDS = ("clean", "one-pixel", "pgd")
SHARES = st.floats(0, 1, allow_nan=False)


def evidence(right: list[list[float]], seconds: tuple[float, ...] = (), names: tuple[str, ...] = ()) -> Evidence:
    names = names or ("clear", "median", "hardened")[: len(right)]
    return Evidence(remedies=names, kinds=KINDS, right=np.array(right), images=np.full(len(KINDS), 50),
                    seconds=np.array(seconds or [1.0] * len(names)), plain="clear")  # fmt: skip


# --- advice -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(SHARES, min_size=3, max_size=3), min_size=3, max_size=3),
       st.tuples(SHARES, SHARES).filter(lambda two: sum(two) > 1e-3), SHARES)  # fmt: skip
def test_the_first_choice_is_the_best_of_a_slow_search_up_to_half_a_point(right, weights, prior):
    known = evidence(right)
    shares = dict(zip(("one-pixel", "pgd"), weights, strict=True))
    ranked = advise(known, shares, prior=prior)
    slow = [(1 - prior) * row[0] + prior * (weights[0] * row[1] + weights[1] * row[2]) / sum(weights) for row in right]
    assert sorted(one.remedy for one in ranked) == sorted(known.remedies)
    assert ranked[0].expected >= max(slow) - 0.005 - 1e-9
    for one in ranked:
        at = known.remedies.index(one.remedy)
        assert one.expected == pytest.approx(slow[at])
        assert one.gain == pytest.approx(one.attacked - ranked[[r.remedy for r in ranked].index("clear")].attacked)
        assert one.cost == pytest.approx(right[0][0] - right[at][0])


def test_of_equally_good_remedies_the_faster_comes_first_and_a_better_one_before_both():
    known = evidence([[0.9, 0.0, 0.0], [0.9, 0.8, 0.8], [0.9, 0.802, 0.8]], (1.0, 3.0, 2.0))
    assert [one.remedy for one in advise(known, {"pgd": 1.0})] == ["hardened", "median", "clear"]
    known = evidence([[0.9, 0.0, 0.0], [0.9, 0.8, 0.9], [0.9, 0.8, 0.8]], (1.0, 3.0, 2.0))
    assert advise(known, {"pgd": 1.0})[0].remedy == "median"


def test_what_was_not_measured_is_left_out_and_strangers_are_refused():
    known = evidence([[0.9, 0.1, 0.1], [0.8, 0.7, float("nan")]])
    assert [one.remedy for one in advise(known, {"pgd": 1.0})] == ["clear"]
    assert advise(known, {"one-pixel": 1.0})[0].remedy == "median"
    with pytest.raises(InvalidInput, match="kinds that were measured"):
        advise(known, {"square": 1.0})
    with pytest.raises(InvalidInput, match="name no attack"):
        advise(known, {"clean": 1.0})
    with pytest.raises(InvalidInput, match="prior"):
        advise(known, {"pgd": 1.0}, prior=1.5)
    with pytest.raises(InvalidInput, match="it needs images of the kind"):
        Evidence(remedies=("a",), kinds=("pgd",), right=np.ones((1, 1)), images=np.ones(1), seconds=np.ones(1),
                 plain="a")  # fmt: skip


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


REMEDIES = {"clear": said(0), "median": said(1), "hardened": said(2)}


def test_every_image_goes_to_the_remedy_that_is_right_about_such_images(bright, worth):
    found = Router(classifier=bright, remedies=REMEDIES, worth=worth).answer(plain([120, 10, 140, 250]))
    assert found.remedy == ("median", "hardened", "median", "hardened")
    assert found.labels.tolist() == [1, 2, 1, 2]
    assert (found.expected > 0.9).all()
    nothing = Router(classifier=bright, remedies=REMEDIES, worth=worth).answer(plain([]))
    assert nothing.remedy == ()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(SHARES, min_size=3, max_size=3), min_size=1, max_size=8), SHARES)
def test_the_choice_is_that_of_a_slow_search_and_the_hopeless_are_turned_away(bright, worth, told, reject):
    class Known(Worth):
        def of(self, table):
            return np.array(told)

    known = Known(**{name: getattr(worth, name) for name in Worth.__dataclass_fields__})
    router = Router(classifier=bright, remedies=REMEDIES, worth=known, reject=reject)
    chosen, expected = router.choose(np.zeros((len(told), 1)))
    for name, hope, row in zip(chosen, expected, told, strict=True):
        assert hope == max(row)
        assert name == (REJECTED if max(row) < reject else known.remedies[row.index(max(row))])


def test_what_remedies_are_worth_is_kept_and_read_without_anything_that_runs(bright, worth, tmp_path):
    table = measure(bright, plain([5, 100, 130, 200]), ("margin",))
    worth.save(tmp_path)
    again = Worth.load(tmp_path)
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
    return Answers(
        kinds=np.array(kinds), names=np.array(["clean"] * 4 + ["pgd"] * 3 + ["one-pixel", "noise"]),
        sources=np.array([*"abcd", *"ab", *"a", *"b", *"a"]), attacked=np.array([False] * 4 + [True] * 4 + [False]),
        right={"clear": np.array([1, 1, 0, 1, 0, 0, 0, 0, 1], dtype=bool),
               "median": np.array([1, 1, 0, 0, 1, 0, 0, 1, 0], dtype=bool)},
    )  # fmt: skip


def test_evidence_is_the_mean_over_kinds_and_clean_images_are_one_kind():
    found = evidence_of(history(), {"clear": 1.0, "median": 2.0}, plain="clear")
    assert found.kinds == ("clean", "noise", "one-pixel", "pgd")
    np.testing.assert_allclose(found.right, [[3 / 4, 1, 0, 0], [2 / 4, 0, 1, (1 / 2 + 0) / 2]])
    assert found.images.tolist() == [4, 1, 1, 3]


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
    assert pgd["attacked"]["median"]["count"] == 1


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
    with pytest.raises(InvalidInput, match="Did you mean 'transform'"):
        read_candidates(written(one.replace("transform", "transfrom")))
    with pytest.raises(InvalidInput, match="learns from attacks"):
        read_candidates(written('[[candidates]]\nname = "a"\nmethod = "retrain"\nsettings = { attacks = ["fgsm"] }\n'))
    for name in ("../a", "clear"):
        with pytest.raises(InvalidInput, match="names a folder"):
            read_candidates(written(one.replace('"a"', f'"{name}"')))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_candidates(tmp_path / "none.toml")


def test_without_a_model_or_auto_the_command_says_what_to_do(tmp_path):
    told = CliRunner().invoke(app, ["defend", "--run", str(tmp_path), "--data", "menagerie"])
    assert isinstance(told.exception, InvalidInput)
    assert "--auto" in str(told.exception)
    told = CliRunner().invoke(app, ["defend", "--auto", "--run", str(tmp_path), "--data", "menagerie"])
    assert isinstance(told.exception, StoreError)


@pytest.mark.slow
def test_the_loop_is_closed_from_the_command_line(laboratory, tmp_path):
    from heatprint.attacks import attack, make
    from heatprint.core.lattice import encode_pngs
    from heatprint.data.sources import load_dataset
    from heatprint.models import load

    common = ["--run", str(laboratory), "--data", "menagerie", "--limit", "160",
              "--trials", str(laboratory / "trials.toml")]  # fmt: skip
    early = CliRunner().invoke(app, ["defend", "--auto", *common, "--with", "median"])
    assert isinstance(early.exception, StoreError)
    assert "detect --benchmark" in str(early.exception)
    built = CliRunner().invoke(app, ["detect", "--benchmark", *common, "--learner", "logistic"], catch_exceptions=False)
    assert built.exit_code == 0, built.output
    asked = ["defend", "--auto", *common, "--with", "median", "--with", "bits", "--images", "20", "--full"]
    first = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    for heading in ("What came in", "Advice", "Attacked anew", "Routing by identified attack", "Routing attacked",
                    "The adviser's record", "Evidence"):  # fmt: skip
        assert f"## {heading}" in first.output
    told = json.loads((laboratory / "defence.json").read_bytes())
    assert {"clear", "median", "bits"} <= set(told["anew"])
    assert told["anew"]["bits"]["past gradients"]
    assert not told["anew"]["clear"]["past gradients"]
    for one in told["anew"].values():
        single = [*one["attacks"].values(), one["strong"]]
        assert one["worst"]["count"] <= min(share["count"] for share in single) <= one["clean"]["count"]
    assert told["chosen"] in told["anew"]
    assert set(told["evaded"]) == {"joint", "joint, eps 4", "taken for a benign change"}
    assert (laboratory / "models" / "bits" / "card.json").exists()
    page = (laboratory / "defence.html").read_text()
    assert "Routing attacked" in page
    assert "http" not in page.replace("http-equiv", "").replace("www.w3.org", "")
    again = CliRunner().invoke(app, asked, catch_exceptions=False)
    second = json.loads((laboratory / "defence.json").read_bytes())
    for timed in (told, second):  # seconds are what they are
        timed["evidence"].pop("seconds")
        timed["advice"] = sorted((one["remedy"], one["expected"]) for one in timed["advice"])
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
