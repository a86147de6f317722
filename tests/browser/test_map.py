"""The map of 100,000 drawn images in a real browser: what it answers to mouse, wheel, lasso and keys, and how fast."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copy, copytree
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from heatprint.runs.columns import packed
from heatprint.runs.shown import Shown
from heatprint.web.specimens import png_of

HERE = Path(__file__).parent
REPORT = HERE.parents[1] / "src" / "heatprint" / "report"
MOST_MS = 60  # of a frame, under software rendering
TITLES = {"clean": "clean", "fgsm": "FGSM", "pgd": "PGD", "one-pixel": "one pixel"}


def drawn(count: int, *, placed: bool = True, fallen: float = 0.7) -> Shown:
    """Half originals, half copies of them of which a share has fallen, in 20 groups of places."""
    rng, half = np.random.default_rng(0), count // 2
    group = rng.integers(0, 20, count)
    centres = rng.uniform(-12, 12, (20, 2))
    umap = (centres[group] + rng.normal(0, 0.9, (count, 2))).astype("<f4")
    copy = np.arange(count) >= half
    label = np.tile(group[:half] % 4, 2).astype("<i2")
    success = (copy & (rng.random(count) < fallen)).astype("u1")
    columns = {
        "umap": umap if placed else np.full_like(umap, np.nan),
        "pca": (rng.normal(0, [3, 1], (count, 2)) if placed else np.full((count, 2), np.nan)).astype("<f4"),
        "pair": np.roll(np.arange(count), half).astype("<i4"),
        "kind": np.where(copy, 1 + np.arange(count) % 3, 0).astype("<i2"),
        "label": label,
        "predicted": np.where(success == 1, (label + 1) % 4, label).astype("<i2"),
        "strategy": (group % 6 - 1).astype("<i2"),
        "success": success,
        "confidence": rng.uniform(0.25, 1, count).astype("<f4"),
        "gain": np.where(success == 1, rng.integers(1, 17, count), -1).astype("<i2"),
        "preserved": rng.random(count).astype("<f4"),
        "moved": np.where(copy, rng.exponential(1, count), np.nan).astype("<f4"),
    }  # fmt: skip
    return Shown(
        name="drawn", facts={}, classes=["ant", "bee", "cat", "dog"], kinds=list(TITLES), titles=TITLES,
        strategies=["a", "b", "c", "d", "e"], digest="", columns=columns, images=None, maps=None, signatures=None,
        ids=pa.array([f"image.{row % half}.png" for row in range(count)], pa.string()),
    )  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("map")
    copytree(REPORT / "static", folder / "static")
    copy(REPORT / "templates" / "style.css", folder / "report.css")
    for name in ("map.html", "map.js"):
        copy(HERE / name, folder)
    (folder / "image.png").write_bytes(png_of(np.full((3, 8, 8), 128, np.uint8)))
    runs = {"many": drawn(100_000), "few": drawn(600), "fallen": drawn(40, fallen=1.0), "huge": drawn(220_000)}
    runs["half"] = replace(runs["few"], columns=runs["few"].columns | {"pictured": (np.arange(600) % 2).astype("u1")})
    for name, run in {**runs, "unplaced": drawn(40, placed=False), "none": drawn(0)}.items():
        facts, block = packed(run)
        (folder / f"{name}.json").write_text(json.dumps(facts))
        (folder / f"{name}.bin").write_bytes(block)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def look(chromium: Any, origin: str) -> Iterator[Any]:
    """Opens the map of a run; at the end nothing must have gone wrong on the page."""
    context = chromium.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    sheet = context.new_page()
    wrong: list[str] = []
    sheet.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
    sheet.on("pageerror", lambda error: wrong.append(str(error)))

    def opened(run: str, state: str = "", more: str = "") -> Any:
        sheet.goto(f"{origin}/map.html?run={run}{more}#{state}")
        sheet.wait_for_function("window.ready")
        sheet.wait_for_timeout(100)
        return sheet

    yield opened
    context.close()
    assert not wrong


def name_of(run: Shown, row: int) -> str:
    return str(run.ids[int(row)].as_py())


def shown(page: Any) -> str:
    return page.text_content(".mv-count")


def places(page: Any, run: Shown, *, morph: float = 1.0) -> np.ndarray:
    """Where rows lie on the canvas, by the rule alone: all fits with 28 pixels around and 56 above. [rows, 2]."""
    box = page.locator(".mv-points").bounding_box()
    own = run.columns["umap"].astype(float)
    low, high = own.min(0), own.max(0)
    room = np.array([box["width"] - 56, box["height"] - 84])
    scale = (room / (high - low)).min()
    middle = np.array([box["width"] / 2, 56 + room[1] / 2])
    clean = own.copy()
    copies = run.columns["kind"] > 0
    clean[copies] = own[run.columns["pair"][copies]]
    at = clean + morph * (own - clean)
    return middle + (at - (low + high) / 2) * scale * np.array([1, -1])


def sight(page: Any, run: Shown) -> np.ndarray:
    """Where rows lie on the canvas, as the state has it. [rows, 2]."""
    box = page.locator(".mv-points").bounding_box()
    x, y, scale = map(float, page.evaluate("state.get().at").split(","))
    return [box["width"] / 2, box["height"] / 2] + (run.columns["umap"] - [x, y]) * [scale, -scale]


def inside(polygon: list[tuple[float, float]], points: np.ndarray) -> np.ndarray:
    """Even-odd, one edge after the other."""
    odd = np.zeros(len(points), bool)
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if y0 != y1:
            crosses = (y0 > points[:, 1]) != (y1 > points[:, 1])
            odd ^= crosses & (points[:, 0] < x0 + (points[:, 1] - y0) / (y1 - y0) * (x1 - x0))
    return odd


def drag(page: Any, corners: list[tuple[float, float]]) -> None:
    box = page.locator(".mv-points").bounding_box()
    for at, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x, box["y"] + y)
        if at == 0:
            page.mouse.down()
    page.mouse.up()


WHEEL = """() => { document.querySelector('.mv-points').dispatchEvent(new WheelEvent('wheel', {
    deltaY: -240, clientX: 500, clientY: 300, bubbles: true, cancelable: true })); return state.get().at; }"""
STAR = [(480 + r * np.sin(a), 330 - r * np.cos(a)) for r, a in
        zip([260, 110] * 6, np.arange(12) * np.pi / 6, strict=True)]  # fmt: skip


@pytest.mark.parametrize("more", ["", "&plain"], ids=["webgl", "plain"])
def test_a_lasso_selects_what_a_slow_count_finds(look, more):
    run = drawn(600)
    page = look("few", more=more)
    wanted = np.flatnonzero(inside(STAR, places(page, run)))
    page.get_by_role("button", name="Lasso").click()
    drag(page, STAR)
    assert 50 < len(wanted) < 550
    assert f"{len(wanted)} selected" in shown(page)
    rows = page.locator(".mv-drawer tbody tr")
    assert rows.evaluate_all("all => all.map((one) => Number(one.dataset.row))") == wanted[:100].tolist()


def test_a_rectangle_selects_and_the_file_has_every_row(look):
    run, page = drawn(600), look("few")
    corners = [(200.0, 120.0), (700.0, 120.0), (700.0, 500.0), (200.0, 500.0)]
    wanted = np.flatnonzero(inside(corners, places(page, run)))
    page.get_by_role("button", name="Rectangle").click()
    drag(page, [corners[0], (400.0, 300.0), corners[2]])
    assert len(wanted) > 100
    page.get_by_role("button", name="Next").click()
    assert page.text_content(".mv-where") == f"101–{min(200, len(wanted))} of {len(wanted)}"
    with page.expect_download() as waited:
        page.get_by_role("button", name="Save as CSV").click()
    lines = Path(waited.value.path()).read_bytes().decode().split("\r\n")
    assert lines[0].startswith("id,attack,true_class,prediction")
    assert [line.split(",")[:2] for line in lines[1:-1]] == [
        [name_of(run, row), run.kinds[run.columns["kind"][row]]] for row in wanted
    ]


@pytest.mark.parametrize("morph", [1.0, 0.4])
def test_the_card_is_of_the_nearest_image(look, morph):
    run = drawn(600)
    page = look("few", f"morph={morph}")
    at, box = places(page, run, morph=morph), page.locator(".mv-points").bounding_box()
    rng = np.random.default_rng(3)
    found = 0
    for x, y in rng.uniform([150, 70], [800, 600], (40, 2)):
        page.mouse.move(box["x"] + x, box["y"] + y)
        away = np.hypot(*(at - [x, y]).T)
        if away.min() > 15:
            assert page.locator(".mv-card").is_hidden()
        elif away.min() < 13 and np.partition(away, 1)[1] - away.min() > 0.1:
            row = int(away.argmin())
            kind = "not attacked" if row < 300 else run.titles[run.kinds[run.columns["kind"][row]]]
            assert page.text_content(".mv-card-name") == name_of(run, row)
            assert page.text_content(".mv-card dd") == kind
            found += 1
    assert found > 5


def test_an_image_without_a_picture_has_an_empty_frame_that_says_why(look):
    run, page = drawn(600), look("half")
    at, box = places(page, run), page.locator(".mv-points").bounding_box()
    for row in (100, 101, 421, 422):
        near = np.argsort(np.hypot(*(at - at[row]).T), kind="stable")
        page.mouse.move(box["x"] + at[row][0], box["y"] + at[row][1])
        shown = page.text_content(".mv-card-name")
        other = next(one for one in near if name_of(run, one) == shown)  # another one may lie on top
        assert page.locator(".mv-card img").count() == other % 2
        assert page.locator(".mv-card .no-photo").count() == 1 - other % 2
        if not other % 2:
            assert "holds no picture" in page.get_attribute(".mv-card .no-photo", "aria-label")
    page.evaluate("run.image = () => 'data:image/png;base64,AAAA'")
    page.mouse.move(box["x"] + at[101][0], box["y"] + at[101][1])
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.evaluate("state.set({ row: run.key(101) })")
    page.click("text=Select all shown")
    page.wait_for_selector(".mv-drawer .no-photo[aria-label*='could not be read']")


def test_a_huge_map_is_painted_at_once_and_drawn_when_it_rests(look):
    spy = """window.drawn = [];
      const draw = WebGL2RenderingContext.prototype.drawArrays;
      WebGL2RenderingContext.prototype.drawArrays = function (mode, ...rest) {
        window.drawn.push(mode === this.POINTS ? "points" : "painted");
        draw.call(this, mode, ...rest);
      };"""
    page = look("few")
    page.context.add_init_script(spy)
    look("few", more="&again")
    assert page.evaluate("drawn[0]") == "points"
    run = drawn(220_000)
    look("huge")
    assert shown(page).startswith("220,000 of 220,000 shown")
    page.wait_for_function("drawn.includes('points')")
    assert page.evaluate("drawn[0]") == "painted"
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    content = io.BytesIO(page.locator(".mv-points").screenshot())
    picture, at = np.asarray(Image.open(content).convert("RGB")).astype(int), places(page, run).astype(int)
    open_ground = (at[:, 1] > 60) & (at[:, 0] < picture.shape[1] - 300)  # no button above it
    seen = picture[at[open_ground, 1], at[open_ground, 0]]
    assert (np.abs(seen - picture[-3, 3]).max(1) > 20).mean() > 0.99  # there is ink where points lie


def test_keys_walk_to_the_nearest_that_way_open_and_clear(look):
    run, page = drawn(600), look("few", "row=clean/image.7.png")
    at = places(page, run)
    page.focus(".mv-points")
    row = 7
    for key, way in [("ArrowRight", (1, 0)), ("ArrowUp", (0, -1)), ("ArrowLeft", (-1, 0)), ("ArrowDown", (0, 1))]:
        step = at - at[row]
        along, aside = step @ np.array(way), np.abs(step @ np.array(way[::-1]))
        away = np.where((along > 0) & (aside <= along), np.hypot(*step.T), np.inf)
        row = int(away.argmin())
        page.keyboard.press(key)
        assert page.evaluate("state.get().row") == f"{run.kinds[run.columns['kind'][row]]}/{name_of(run, row)}"
        assert name_of(run, row) in page.evaluate("said.at(-1)")
    page.keyboard.press("n")  # the other of the pair
    assert page.evaluate("run.row(state.get().row)") == run.columns["pair"][row]
    page.keyboard.press("Space")
    assert "1 selected" in shown(page)
    page.keyboard.press("Escape")
    assert "0 selected" in shown(page)
    page.keyboard.press("Enter")
    assert page.evaluate("state.get().view") == "pair"


@pytest.mark.parametrize(("words", "picks"), [
    ("filter=flipped", lambda c: c["success"] == 1),
    ("least=3", lambda c: (c["gain"] >= 0) & (c["gain"] <= 3)),
    ("filter=moved", lambda c: (c["moved"] > np.median(c["moved"][c["success"] == 1]))
     & (c["predicted"] == c["predicted"][c["pair"]])),
])  # fmt: skip
def test_filters_show_copies_with_their_originals(look, words, picks):
    run = drawn(600)
    copies = np.flatnonzero(picks(run.columns) & (run.columns["kind"] > 0))
    page = look("few", words)
    assert 10 < len(copies) < 290
    assert f"{2 * len(copies)} of 600 shown" in shown(page)
    page.get_by_role("button", name="Show everything").click()
    assert "600 of 600 shown" in shown(page)
    assert page.evaluate("(state.flush(), location.hash)") in ("", "#")


def test_the_legend_hides_and_a_link_shows_the_same(look):
    run, page = drawn(600), look("few")
    page.locator(".mv-entry", has_text="clean").click()
    assert "300 of 600 shown" in shown(page)
    page.get_by_label("Names with").fill("image.1")
    page.wait_for_function("state.get().filter === 'all:image.1'")
    wanted = sum("image.1" in name for name in run.ids.to_pylist()[300:])
    assert f"{wanted} of 600 shown" in shown(page)
    link = page.evaluate("(state.flush(), location.hash)").removeprefix("#")
    look("unplaced")
    again = look("few", link)
    assert f"{wanted} of 600 shown" in shown(again)
    assert again.input_value(".mv-group input[type=search]") == "image.1"


def test_what_is_hidden_and_in_sight_outlasts_leaving_and_a_link(look):
    run, page = drawn(600), look("few", "colour=label")
    page.locator(".mv-entry", has_text="bee").click()
    assert page.evaluate(WHEEL) == ""  # not before the movement has ended
    page.wait_for_function("state.get().at")
    link = page.evaluate("(state.flush(), location.hash)").removeprefix("#")
    at, stays = page.evaluate("state.get().at"), run.columns["label"] != 1
    box, points = page.locator(".mv-points").bounding_box(), sight(page, run)
    away = np.where(stays, np.hypot(*(points[:, None] - points).transpose(2, 0, 1)), np.inf)
    alone = np.partition(away, 1, axis=1)[:, 1] * (stays & (np.abs(points - [450, 330]) < [300, 230]).all(1))
    row = int(alone.argmax())  # the one that can be pointed at most safely
    for leave in (None, lambda: page.evaluate("(undo(), begin())"), lambda: [look("none"), look("few", link)]):
        if leave:
            leave()
            page.wait_for_timeout(500)  # until it would have been told that all is in sight
        assert page.evaluate("state.get().at") == at
        assert f"{stays.sum()} of 600 shown" in shown(page)
        page.mouse.move(0, 0)
        page.mouse.move(box["x"] + points[row][0], box["y"] + points[row][1])
        assert page.text_content(".mv-card-name") == name_of(run, row)
    page.locator(".mv-two select").first.select_option("predicted")
    assert "600 of 600 shown" in shown(page)
    page.get_by_role("button", name="Fit").click()
    page.wait_for_function("state.get().at === ''")


def test_the_selection_outlasts_leaving_and_what_was_chosen_meanwhile_is_in_sight(look):
    run = drawn(600)
    x, y = run.columns["umap"][7]
    far = int(np.hypot(*(run.columns["umap"][:300] - [x, y]).T).argmax())
    page = look("few", f"row=clean/image.7.png&at={x},{y},300")
    page.focus(".mv-points")
    page.keyboard.press("Space")
    page.evaluate(f"(undo(), state.set({{ row: run.key({far}) }}), begin())")
    assert "1 selected" in shown(page)
    assert page.get_attribute(".mv-drawer tbody tr", "data-row") == "7"
    page.wait_for_function(f"Math.abs({x} - state.get().at.split(',')[0]) > 0.1")
    box, at = page.locator(".mv-points").bounding_box(), sight(page, run)[far]
    assert ((at > 0) & (at < [box["width"], box["height"]])).all()


def test_a_filter_that_can_find_nothing_is_not_offered(look):
    for run, offered in [("few", True), ("fallen", False)]:
        select = look(run).get_by_label("Which copies")
        assert (select.locator("option[value=moved]").count() == 1) == offered
        assert ("no copy in this run" in (select.get_attribute("title") or "")) != offered


def test_nothing_to_show_is_said_with_a_way_out(look):
    page = look("few", "filter=all:nowhere")
    assert "names with “nowhere”" in page.text_content(".mv-none")
    page.locator(".mv-none button").click()
    assert page.locator(".mv-none").is_hidden()
    assert "no places" in look("unplaced").text_content("main")
    assert "no images" in look("none").text_content("main")


def test_without_webgl_it_says_so_and_that_it_samples(look):
    page = look("many", more="&plain")
    said = page.text_content(".mv-note")
    assert "no WebGL2" in said
    assert "random sample of 20,000 of the 100,000" in said
    page.get_by_role("button", name="Select all shown").click()
    assert "100,000 selected" in shown(page)


def test_a_lost_context_comes_back(look):
    page = look("few")
    page.evaluate(
        "window.lose = document.querySelector('.mv-points').getContext('webgl2').getExtension('WEBGL_lose_context')"
    )
    page.evaluate("lose.loseContext()")
    page.wait_for_timeout(100)
    page.locator(".mv-two select").first.select_option("confidence")  # while there is nothing to draw on
    page.evaluate("lose.restoreContext()")
    page.wait_for_timeout(300)
    shot = page.locator(".mv-points").screenshot()
    before = look("few", "colour=confidence").locator(".mv-points").screenshot()
    assert shot == before


def test_a_phone_has_everything_below_the_map(look):
    page = look("few")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    frame, side = page.locator(".mv-frame").bounding_box(), page.locator(".mv-side").bounding_box()
    assert frame["width"] == pytest.approx(390, abs=16)
    assert side["y"] >= frame["y"] + frame["height"] > 400


MOVES = {
    "pan": "(at('pointerdown', 300, 300), (i) => at('pointermove', 300 + 3 * (i % 60), 300 + (i % 40)))",
    "zoom": """((i) => document.querySelector('.mv-points').dispatchEvent(new WheelEvent('wheel', {
        deltaY: i % 20 < 10 ? -40 : 40, clientX: 400, clientY: 350, bubbles: true, cancelable: true })))""",
    "hover": "((i) => at('pointermove', 60 + 13 * (i % 60), 80 + 7 * (i % 70)))",
    "morph": """((i) => { const slider = document.querySelector('.mv-morph input'); slider.value = 1 - (i % 50) / 50;
        slider.dispatchEvent(new Event('input')); })""",
    "lasso": """(at('pointerdown', 300, 300, { shiftKey: true }),
        (i) => at('pointermove', 450 + 200 * Math.cos(i / 8), 330 + 160 * Math.sin(i / 8), { shiftKey: true }))""",
}
LET_GO = """() => {
  at('pointerdown', 250, 330, { shiftKey: true });
  for (let i = 0; i <= 100; i++) at('pointermove', 450 - 200 * Math.cos(i / 16), 330 + 160 * Math.sin(i / 16));
  const began = performance.now();
  at('pointerup', 450, 330);
  return performance.now() - began;
}"""


@pytest.mark.slow
def test_a_hundred_thousand_points_move_fluidly(look, capsys):
    """At most 60 ms a frame, from the eighth on: by then the map has noticed that drawing is slow.

    Both the median and the mean until all is drawn count, in the best of three rounds: other work on the machine can
    only add to them. Each round is printed, with its worst frame.
    """
    page = look("many")
    box = page.locator(".mv-points").bounding_box()
    lines = [f"{box['width']:.0f} x {box['height']:.0f} pixels; shown {page.evaluate('shownIn'):.0f} ms after the data"]
    best = {}
    for name, step in MOVES.items():
        rounds = []
        for _ in range(3):
            page.get_by_role("button", name="Fit").click()
            page.wait_for_timeout(400)
            rounds.append(page.evaluate(f"frames({step}, 40)"))
            page.evaluate("at('pointercancel', 0, 0)")
            page.wait_for_timeout(400)
        typical = [max(median(found["times"]), found["whole"]) for found in rounds]
        best[name] = min(typical)
        told = "; ".join(f"{median(one['times']):.0f}, {one['whole']:.0f}, {max(one['times']):.0f}" for one in rounds)
        lines.append(f"{name}: {best[name]:.1f} ms (rounds as median, mean, worst: {told})")
    page.get_by_role("button", name="Fit").click()
    lines.append(f"a lasso let go: {page.evaluate(LET_GO):.1f} ms; {shown(page)}")
    with capsys.disabled():
        print("\n100,000 points under software rendering\n  " + "\n  ".join(lines))
    assert all(ms <= MOST_MS for ms in best.values()), best
    assert page.locator(".mv-drawer tbody tr").count() == 100
