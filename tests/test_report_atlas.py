"""The report's section on the atlas, read back from the page as a browser would."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from heatprint.core.errors import StoreError
from heatprint.core.store import Part, Store, write_json
from heatprint.report import report
from heatprint.report.atlas import atlas
from heatprint.report.atlas_cards import gain_words
from heatprint.report.charts import HEIGHT, WIDTH, spectrum
from heatprint.report.map_quality import quality
from heatprint.report.pictures import outline
from heatprint.report.points import COLUMNS as POINT_COLUMNS
from heatprint.report.read import TILE_COLUMNS, read_run

HOSTILE = "<script>alert(1)</script>&\"'"
CLASSES = ("cats", HOSTILE)
SIDE, SIZE = 8, 24


def share(count: int, total: int) -> dict[str, Any] | None:
    if not total:
        return None
    at = count / total
    return {"count": count, "total": total, "share": round(at, 6), "low": round(at / 2, 6), "high": round(at, 6)}


def card(name: str, explained: str, n: int, *, test: bool) -> dict[str, Any]:
    return {
        "name": name, "class": explained, "strategy": n, "images": 100 - 11 * n, "suspicion": round(1.9 - 0.3 * n, 6),
        "labels": {explained: 98 - 11 * n, "cats" if explained != "cats" else HOSTILE: 2},
        "purity": share(98 - 11 * n, 100 - 11 * n), "accuracy": share(97 - 11 * n, 100 - 11 * n),
        "separability": 3.125 - n, "edge": 0.31, "agreement": 0.62,
        "attacks": {
            "fgsm": {"held": share(30 + n, 90), "gain": {"median": 3.0 + n, "low": 2.0, "high": None},
                     "unit": "levels of 1/255", "confusion": {"class": "cats", "count": 41 + n}},
            "one-pixel": {"held": share(0, 0), "gain": None, "unit": "generations", "confusion": None},
        },
        "counterfactual": {
            "region": 0.1225, "removed": share(61, 80), "removed_control": share(4, 80), "removed_rest": share(5, 70),
            "pasted": share(33, 50), "pasted_control": None,
        } if test else None,
    }  # fmt: skip


def numbers() -> dict[str, Any]:
    spectra = {"eigenvalues": [0.0, 0.02, 0.6, 0.7, None], "null": [0.0, 0.5, 0.55, 0.6, 0.65]}
    cards = [card(f"{HOSTILE} 2", HOSTILE, 0, test=True), card("cats 1", "cats", 1, test=False)]
    cards += [card(f"{HOSTILE} {n}", HOSTILE, n, test=n == 3) for n in (1, 3, 4)]
    gain = {"median": 2.0, "low": 1.0, "high": 3.0}
    flow = {
        "images": 60, "proposed": 1, "count": 2, "forced": True, "stability": 0.5,
        "strategies": [
            {"name": "A", "clean": 40, "attacked": 17, "difference": 9, "classes": {HOSTILE: 40}},
            {"name": "B", "clean": 20, "attacked": 43, "difference": 30, "classes": {}},
        ],
        "matrix": [[13, 27], [4, 16]], "stayed": share(29, 60),
        "falls": [{"name": "cats 1", "held": share(31, 90), "gain": gain},
                  {"name": f"{HOSTILE} 2", "held": share(30, 90), "gain": None}],
    }  # fmt: skip
    relations = [
        {"of": "plane", "rho": 0.31, "low": 0.2, "high": 0.41, "p": 0.0005, "pooled": 0.55},
        {"of": "signature", "rho": 0.05, "low": -0.1, "high": 0.2, "p": 0.61, "pooled": -0.04},
        {"of": "logit margin", "rho": 0.72, "low": 0.65, "high": 0.79, "p": 0.0005, "pooled": 0.8},
    ]
    relations = [one | {"images": count} for one, count in zip(relations, (890, 870, 900), strict=True)]
    undefined = [{"of": "plane", "images": 4, "rho": None, "low": None, "high": None, "p": None, "pooled": None}]
    return {
        "images": 2000, "side": SIDE, "method": "spray", "explainer": "lrp.sequential_preset_a_flat",
        "classes": [
            {"class": HOSTILE, "images": 990, "proposed": 2, "count": 2, "forced": False, "stability": 0.97,
             "separability": 3.9, **spectra},
            {"class": "cats", "images": 1010, "proposed": 1, "count": 3, "forced": True, "stability": 0.41,
             "separability": None, "eigenvalues": [], "null": []},
        ],
        "cards": cards, "flows": {"fgsm": flow},
        "border": {"fgsm": {"images": 900, "censored": 20, "relations": relations},
                   "one-pixel": {"images": 4, "censored": 4, "relations": undefined}},
    }  # fmt: skip


MAP = {
    "points": 11, "clean": 8, "attacked": 3, "trust": 0.9812, "preserved": 0.634, "neighbours": 15,
    "floor": {"images": 200, "median": 0.111, "high": 0.222, "most": 3.3},
    "displacement": {"fgsm": {"images": 77, "signature": {"median": 0.0123, "low": 0.01, "high": 0.02},
                              "plane": {"median": 4.5, "low": 1.25, "high": None}, "beyond_floor": share(70, 77)}},
}  # fmt: skip


def drawn(cards: list[dict[str, Any]]) -> Part:
    rng = np.random.default_rng(0)
    count = len(cards)
    region = np.zeros((count, SIZE, SIZE), bool)
    region[:1, 3:6, 6:12] = True
    ids = [[f"{n}/a.png", f"{n}/b.png", f"{n}/{HOSTILE}.png"] for n in range(count)]
    ids[1:2] = [["1/a.png"] * 3] if count else []  # a strategy of one image
    return Part(
        rows={"name": [one["name"] for one in cards], "medoid_ids": ids},
        arrays={
            "mean_map": rng.normal(size=(count, SIDE, SIDE)).astype(np.float32),
            "mean_image": rng.integers(0, 256, (count, 3, SIZE, SIZE)).astype(np.uint8),
            "region": region,
            "medoid_pixels": rng.integers(0, 256, (count, 3, 3, SIZE, SIZE)).astype(np.uint8),
            "medoid_heat": rng.normal(size=(count, 3, SIZE, SIZE)).astype(np.float32),
        },
    )


def build_run(folder: Path, *, change: dict[str, Any] | None = None, part: Part | None = None) -> Path:
    """The least that is a finished run, with an atlas unless `change` takes it away."""
    metrics = {"classes": list(CLASSES), "table1": [], "arms": [], "attacks": {}, "map": MAP, "atlas": numbers()}
    metrics = {name: value for name, value in (metrics | (change or {})).items() if value is not None}
    settings = {
        "recipe_name": "tiny", "seed": 0, "recipe": {}, "versions": {}, "data": {"source": "x"}, "models": {},
        "attacks": {"fgsm": {"title": "FGSM"}, "one-pixel": {"title": f"pixel {HOSTILE}"}}, "explainer": {},
    }  # fmt: skip
    store = Store(folder)
    points: dict[str, list[Any]] = {name: [] for name in POINT_COLUMNS}
    for n in range(4):
        for name, value in zip(POINT_COLUMNS, (f"{n}", "cats", "clean", "cats", n, n, n, n, False), strict=True):
            points[name].append(value)
    with store.writing():
        store.memo("figures", 0, "test", lambda: Part(rows={name: [] for name in TILE_COLUMNS}))
        store.memo("global", 0, "test", lambda: Part(rows=points))
        if "atlas" in metrics:
            store.memo("atlas/cards", 0, "test", lambda: part or drawn(metrics["atlas"]["cards"]))
        write_json(folder / "metrics.json", metrics)
        write_json(folder / "run.json", settings)
    return folder


class Page(HTMLParser):
    """The section on the atlas: elements with attributes, tables as rows of cells, facts, headings, words."""

    def __init__(self, text: str, section: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.facts: list[list[str]] = []
        self.words = ""
        self._open = ""
        inside = re.search(rf'<section id="{section}">.*?</section>', text, re.DOTALL)
        self.feed(inside.group() if inside else "")
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "caption":
            self.captions.append("")
        if tag == "dt":
            self.facts.append(["", ""])
        if tag in ("td", "th", "caption", "dt", "dd"):
            self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = "" if tag == self._open else self._open

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._open in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if self._open == "caption":
            self.captions[-1] += data
        if self._open in ("dt", "dd"):
            self.facts[-1][self._open == "dd"] += data


def plain(text: str) -> str:
    return " ".join(text.replace("\xa0", " ").split())


def told(value: dict[str, Any] | None) -> str:
    if value is None:
        return "–not measured"
    interval = f"[{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
    return f"{100 * value['share']:.1f} % {value['count']}/{value['total']} {interval}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(report(run).read_text(encoding="utf-8"), "atlas")


def cells(page: Page, start: str) -> list[list[str]]:
    """The body of the table whose caption begins like this."""
    for caption, table in zip(page.captions, page.tables, strict=True):
        if plain(caption).startswith(start):
            return [[plain(cell) for cell in row] for row in table[1:]]
    raise AssertionError(f"no table {start!r} among {page.captions}")


def test_hostile_names_stay_words_and_nothing_is_loaded(run: Path, page: Page) -> None:
    assert "<script>alert" not in (run / "report.html").read_text(encoding="utf-8")
    assert f"{HOSTILE} 2" in page.words
    assert "script" not in {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
        assert "url(" not in (attributes.get("style") or "")


def test_classes_are_printed_and_forced_partitions_marked(page: Page) -> None:
    assert cells(page, "Classes as the network") == [
        [HOSTILE, "990", "2", "2", "0.97", "3.90"],
        ["cats", "1,010", "1", "3 the data propose 1; shown: 3, exploratory", "0.41", "–"],
    ]


def test_maps_that_were_not_clustered_say_why(tmp_path: Path) -> None:
    found = numbers()
    found["classes"][1] |= {"count": 1, "forced": False, "note": "isomap: 16 are too few."}
    found["flows"]["fgsm"] |= {"count": 1, "forced": False, "note": "isomap: 17 are too few."}
    page = Page(report(build_run(tmp_path / "run", change={"atlas": found})).read_text(encoding="utf-8"), "atlas")
    assert cells(page, "Classes as the network")[1][3] == "1 not clustered: isomap: 16 are too few."
    assert "not clustered: isomap: 17 are too few." in page.words


def test_cards_come_in_order_with_all_their_numbers(page: Page) -> None:
    cards = numbers()["cards"]
    facts = [[plain(name), plain(value)] for name, value in page.facts]
    starts = [n for n, (name, _) in enumerate(facts) if name == "suspicion"]
    assert [facts[n][1] for n in starts] == ["1.90", "1.60", "1.60"]  # three large, in the run's order
    for card_, start, stop in zip(cards, starts, [*starts[1:], len(facts)], strict=False):
        found = dict(facts[start:stop])
        assert found["purity"] == told(card_["purity"])
        assert found["accuracy"] == told(card_["accuracy"])
        assert found["still right after FGSM"] == told(card_["attacks"]["fgsm"]["held"])
        assert (
            found["FGSM, median gain to fall (levels of 1/255)"]
            == f"{card_['attacks']['fgsm']['gain']['median']:g} [2, beyond]"
        )
        assert found["FGSM, mostly called"] == f"cats ({card_['attacks']['fgsm']['confusion']['count']})"
        assert found[f"still right after pixel {HOSTILE}"] == "–not measured"
        assert ("region removed: leaves the class" in found) == bool(card_["counterfactual"])
    first = dict(facts[: starts[1]])
    assert first["region removed: leaves the class"] == told(share(61, 80))
    assert first["control, as much removed elsewhere"] == told(share(4, 80))
    assert first["removed from the rest of the class"] == told(share(5, 70))
    assert first["region pasted: turns to the class"] == told(share(33, 50))
    assert first["control, pasted from outside the strategy"] == "–not measured"
    assert first["region, of the image’s area"] == "12.2 %"
    rest = cells(page, "The other strategies")
    assert [row[0] for row in rest] == [card_["name"] for card_ in cards[3:]]
    assert [row[2] for row in rest] == ["1.00", "0.70"]
    assert rest[0][3:6] == [told(cards[3][key]) for key in ("purity", "accuracy")] + [
        told(cards[3]["attacks"]["fgsm"]["held"])
    ]
    assert rest[0][-2] == f"{told(share(61, 80))} control: {told(share(4, 80))}"
    assert rest[1][-2:] == ["–", "–"]


def test_pictures_are_inlined_and_a_repeated_medoid_shown_once(page: Page) -> None:
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert all((one["src"] or "").startswith("data:image/png;base64,") and one["alt"] for one in images)
    medoids = [one["alt"] for one in images if one["alt"] and "nearest to the mean map of" in one["alt"]]
    assert len([alt for alt in medoids if not alt.startswith("Heat map")]) == 3 + 1 + 3
    paths = [attributes["d"] for tag, attributes in page.elements if tag == "path"]
    assert len(set(paths)) == 1  # only the first card has a region, over its mean image and its mean map
    assert len(paths) == 4


def test_the_flow_matrix_counts_and_colours(page: Page) -> None:
    rows = cells(page, "FGSM: 60 images")
    assert rows[0] == ["A", "13 32 %", "27 68 %", "40", "17", "9", f"{HOSTILE} 40"]
    assert rows[1] == ["B", "4 20 %", "16 80 %", "20", "43", "30", "–"]
    heat = [a["class"].split()[1] for tag, a in page.elements if tag == "td" and "heat" in (a.get("class") or "")]
    assert heat == ["heat-6", "heat-14", "heat-4", "heat-16"]  # in steps of 5 %
    caption = plain(next(c for c in page.captions if plain(c).startswith("FGSM: 60 images")))
    assert "the data propose 1; shown: 2, exploratory" in caption
    assert caption.endswith(f"Of all, {told(share(29, 60))} stayed in their strategy.")
    assert cells(page, "Which strategies") == [
        ["cats 1", "2 [1, 3]", told(share(31, 90))],
        [f"{HOSTILE} 2", "–", told(share(30, 90))],
    ]


def test_the_border_is_read_honestly(run: Path, page: Page) -> None:
    rows = cells(page, "Spearman")
    assert rows[0][1:5] == ["distance to the border in the plane 890 images", "0.31 [0.20, 0.41]", "0.0005", "0.55"]
    assert [row[-2] for row in rows[1:3]] == ["−0.04", "0.80"]
    assert sum(tag == "td" and at.get("class") == "muted" for tag, at in page.elements) == len(rows)
    assert rows[0][5] == "the interval excludes 0: images near the border fall to smaller gains"
    assert rows[1][-1] == "the interval includes 0: no relation shown"
    assert rows[2][0] == "margin of the logits, the baseline without a heat map 900 images"
    assert rows[3][1:] == ["distance to the border in the plane 4 images", "–", "–", "–", "not defined"]
    assert "among images of one predicted class" in plain(page.captions[-1])
    assert (
        "In the plane, the interval excludes 0 (ρ = 0.31 [0.20, 0.41]): images near the border fall to smaller gains. "
        "The interval of the margin of the logits, which needs no explanation, excludes 0 as well "
        "(ρ = 0.72 [0.65, 0.79]); it lies wholly above that of the plane."
    ) in page.words
    assert "was not defined here" in page.words
    assert "fitted to the clean images alone" in page.words
    assert "ranked within their predicted class" in page.words
    found = numbers()
    for low, high, words in ((-0.5, -0.1, "need larger gains"), (-0.1, 0.5, "no relation shown")):
        found["border"]["fgsm"]["relations"][0] |= {"low": low, "high": high}
        assert words in _sentence_of(run, found)
    found["border"]["fgsm"]["relations"][0] |= {"low": 0.1, "high": 0.7}
    assert "the two intervals overlap" in _sentence_of(run, found)
    found["border"]["fgsm"]["relations"][0] |= {"low": 0.85, "high": 0.95}
    assert "it lies wholly below that of the plane" in _sentence_of(run, found)
    margin = found["border"]["fgsm"]["relations"][2]
    margin |= {"low": -0.1, "high": 0.1}
    assert "no explanation, includes 0 (ρ" in _sentence_of(run, found)
    found["border"]["fgsm"]["relations"][0] |= {"low": -0.2, "high": 0.2}
    assert "no explanation, includes 0 as well (ρ" in _sentence_of(run, found)
    margin |= {"low": 0.05, "high": 0.3}
    assert "no explanation, excludes 0 (ρ" in _sentence_of(run, found)
    found["border"]["fgsm"]["relations"][0] |= {"low": -0.4, "high": -0.2}
    assert "no explanation, excludes 0 on the other side (ρ" in _sentence_of(run, found)
    margin |= {"low": -0.5, "high": -0.1}
    assert "no explanation, excludes 0 as well (ρ" in _sentence_of(run, found)


def _sentence_of(run: Path, found: dict[str, Any]) -> str:
    read = read_run(run)
    metrics = {**read.metrics, "atlas": copy.deepcopy(found)}
    section = atlas(type(read)(settings=read.settings, metrics=metrics, tiles=(), atlas=read.atlas))
    assert section is not None
    return section.borders[0].sentence


def test_tables_have_captions_and_headers(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("caption") == tags.count("table") == 5
    assert all(attributes.get("scope") for tag, attributes in page.elements if tag == "th")
    charts = [a for tag, a in page.elements if tag == "svg" and a.get("role") == "img"]
    assert len(charts) == 1  # a class without a graph has no eigenvalues to draw
    assert "proposed strategies: 2" in (charts[0]["aria-label"] or "")


def test_the_map_says_how_far_to_trust_it(run: Path) -> None:
    found = Page(report(run).read_text(encoding="utf-8"), "maps")
    words = plain(found.words)
    for said in ("trustworthiness 0.981", "63.4 %", "among 15 neighbours", "200 images", "0.222 at the 95th"):
        assert said in words
    assert cells(found, "How far attacked images") == [
        ["FGSM", "77", "0.0123 [0.01, 0.02]", "4.5 [1.25, –]", told(share(70, 77))]
    ]
    read = read_run(run)
    bare = {**read.metrics, "map": {"points": 1, "clean": 1, "attacked": 0}}
    assert quality(type(read)(settings=read.settings, metrics=bare, tiles=())) is None
    empty = {"trust": None, "preserved": None, "floor": {"images": 0, "median": None, "high": None, "most": None}}
    assert quality(type(read)(settings=read.settings, metrics={**bare, "map": empty}, tiles=())) is None


def test_a_run_without_atlas_reads_as_before(tmp_path: Path) -> None:
    text = report(build_run(tmp_path / "old", change={"atlas": None})).read_text(encoding="utf-8")
    assert 'id="atlas"' not in text
    assert 'href="#atlas"' not in text
    assert 'id="maps"' in text


def test_an_atlas_of_nothing_is_a_sentence(tmp_path: Path) -> None:
    nothing = numbers() | {"cards": [], "classes": [], "flows": {}, "border": {}}
    page = Page(report(build_run(tmp_path / "none", change={"atlas": nothing})).read_text(encoding="utf-8"), "atlas")
    assert "made no cards" in page.words
    assert not page.facts


def test_cards_that_do_not_fit_the_numbers_are_a_store_error(tmp_path: Path) -> None:
    cards = numbers()["cards"]
    whole = drawn(cards)
    renamed = Part(rows={**whole.rows, "name": ["other", *whole.rows["name"][1:]]}, arrays=whole.arrays)
    short = Part(rows=whole.rows, arrays={**whole.arrays, "region": whole.arrays["region"][1:]})
    for n, part in enumerate((renamed, short)):
        with pytest.raises(StoreError, match=r"'atlas/cards' does not fit.*heatprint study --out"):
            report(build_run(tmp_path / f"run{n}", part=part))


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    assert report(build_run(tmp_path / "again")).read_bytes() == report(run).read_bytes()


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (None, "–"),
        ({"median": None, "low": None, "high": None}, "beyond every gain tried"),
        ({"median": None, "low": 7.0, "high": None}, "beyond every gain tried [7, beyond]"),
        ({"median": 4.0, "low": None, "high": None}, "4"),
        ({"median": 4.0, "low": 2.5, "high": 11.0}, "4 [2.5, 11]"),
    ],
)
def test_gains_in_words(gain: dict[str, Any] | None, words: str) -> None:
    assert gain_words(gain) == words


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_an_outline_encloses_exactly_its_region(region: np.ndarray) -> None:
    """By crossings: a pixel lies inside when a ray from the left crosses an odd number of upright lines."""
    crossings = np.zeros((region.shape[0], region.shape[1] + 1), int)
    level = 0
    for x, y, kind, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", outline(region)):
        if kind == "v":
            crossings[int(y) : int(y) + int(length), int(x)] += 1
        else:
            level += int(length)
    assert np.array_equal(crossings.cumsum(1)[:, :-1] % 2 == 1, region)
    padded = np.pad(region, 1)
    assert level == int((padded[1:] != padded[:-1]).sum())


@given(
    st.lists(st.none() | st.floats(0, 2), max_size=20), st.lists(st.none() | st.floats(0, 2), max_size=20),
    st.integers(0, 25),
)  # fmt: skip
def test_a_spectrum_stays_in_its_frame(eigenvalues: list[Any], null: list[Any], proposed: int) -> None:
    chart = spectrum(eigenvalues, null, proposed, "x")
    known = [v for v in eigenvalues if v is not None]
    assert (chart is None) == (not known)
    if chart:
        assert len(chart.dots) == len(known)
        points = [tuple(map(float, place.split(","))) for place in chart.null.split()]
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in [*chart.dots, *points])
        if chart.gap is not None:  # stands between the last of those proposed and the next
            assert chart.dots[proposed - 1][0] < chart.gap < chart.dots[proposed][0]
