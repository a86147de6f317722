"""The pair and the laboratory in a real browser, against a real run: what is drawn, what keys do, what is asked."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

# a map that is no exact account of the score is still drawn; that the explainer says so is not an error of the page
pytestmark = pytest.mark.filterwarnings("ignore::heatprint.explainers.conservation.ConservationWarning")

WAIT = 30_000  # ms: a loaded machine
PREDICTION = ".predicted .answer"
PIXELS = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"


def show(page: Any, **state: str) -> None:
    """Go to a view by its address, as a link would."""
    page.wait_for_selector("#tabs a")
    page.evaluate("hash => { location.hash = hash; }", urlencode(state))
    page.wait_for_selector(f"main.view-{state['view']} > div")


def drawn(page: Any, selector: str) -> np.ndarray:
    """Pixels of a canvas, uint8 [H, W, 3]."""
    flat = np.asarray(page.eval_on_selector(selector, PIXELS), dtype=np.uint8)
    side = int(len(flat) / 4) ** 0.5
    return flat.reshape(int(side), int(side), 4)[..., :3]


def stored(page: Any, served: Any, key: str) -> np.ndarray:
    """An image as the server has it, uint8 [H, W, 3]."""
    answer = page.request.get(f"{served.origin}/api/image/{served.rows.index(key)}.png")
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"))


def looked(page: Any, served: Any, **specimen: Any) -> dict[str, Any]:
    """What the laboratory says of an image, asked beside the page."""
    method = page.request.get(f"{served.origin}/api/live").json()["explainers"][0]["name"]
    answer = page.request.post(
        f"{served.origin}/api/live/look", data=json.dumps({"specimen": specimen, "method": method}),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert answer.ok, answer.text()
    found: dict[str, Any] = answer.json()
    found["heat"] = np.frombuffer(base64.b64decode(found["heat"]), "<f4")
    return found


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@pytest.fixture
def attacked(served: Any) -> str:
    """An attacked copy that changes most pixels."""
    return next(key for key in served.rows if key.startswith("fgsm/"))


@pytest.fixture
def clean(served: Any, attacked: str) -> str:
    """Its original."""
    return "clean/" + attacked.partition("/")[2]


@pytest.fixture
def looks(page: Any) -> list[int]:
    """How many looks were under way at each start of one."""
    under = [0]
    seen: list[int] = []

    def began(sent: Any) -> None:
        if sent.url.endswith("/api/live/look"):
            under[0] += 1
            seen.append(under[0])

    def ended(sent: Any) -> None:
        if sent.url.endswith("/api/live/look"):
            under[0] -= 1

    page.on("request", began)
    page.on("requestfinished", ended)
    page.on("requestfailed", ended)
    return seen


def test_the_pair_shows_both_images_and_what_differs(
    page: Any, served: Any, attacked: str, clean: str, screenshots: Path
) -> None:
    show(page, view="pair", row=attacked)
    page.wait_for_selector(".verdicts", timeout=WAIT)
    before, after = stored(page, served, clean), stored(page, served, attacked)
    cards = [f".cards-three > :nth-child({place}) .shot:first-child canvas" for place in (1, 2)]
    assert np.array_equal(drawn(page, cards[0]), before)
    assert np.array_equal(drawn(page, cards[1]), after)
    gap = after.astype(float) - before
    told = page.inner_text(".cards-three > :nth-child(3) dl")
    assert f"{int((gap != 0).any(-1).sum()):,} of {before.shape[0] * before.shape[1]:,}" in told
    assert f"{np.linalg.norm(gap / 255):.3f}" in told
    assert f"{int(np.abs(gap).max())} levels" in told
    answer = looked(page, served, base=f"row:{served.rows.index(attacked)}")
    assert percent(max(answer["probabilities"])) in page.inner_text(".cards-three > :nth-child(2) .answer")
    page.wait_for_selector(".gain-curve")
    assert page.locator(".boxes-three .thumb").count() > 0
    page.screenshot(path=screenshots / "pair.png", full_page=True)


def test_one_scale_and_the_same_middle_for_both_heat_maps(page: Any, served: Any, attacked: str, clean: str) -> None:
    show(page, view="pair", row=attacked)
    page.wait_for_selector(".colour-bar", timeout=WAIT)
    maps = [looked(page, served, base=f"row:{served.rows.index(key)}")["heat"] for key in (clean, attacked)]
    limit = np.quantile(np.abs(np.concatenate(maps)), 0.995, method="inverted_cdf")
    ends = page.locator(".colour-bar .ends span").all_inner_texts()
    assert ends[1] == "0"
    assert float(ends[2].lstrip("+")) == pytest.approx(limit, rel=0.05)
    heat = drawn(page, ".cards-three > :nth-child(1) .shot:nth-child(2) canvas").reshape(-1, 3).astype(int)
    loud = np.abs(maps[0]) > 0.2 * limit
    assert (np.sign(heat[loud, 0] - heat[loud, 2]) == np.sign(maps[0][loud])).all()  # red for, blue against
    assert (heat[np.abs(maps[0]) < 1e-4 * limit] >= 254).all()  # nothing is white
    words = page.get_attribute(".cards-three > :nth-child(1) .shot:nth-child(2) canvas", "aria-label")
    assert re.search(r"\d+ % of \|relevance\| in the (upper|lower) (left|right) quarter", words)


def test_keys_lead_from_pair_to_pair_but_not_out_of_a_field(page: Any, served: Any) -> None:
    kind = [key for key in served.rows if key.startswith("clean/")][:3]
    show(page, view="pair", row=kind[0])
    page.wait_for_selector(".cards-three")
    for key, wanted in (("j", kind[1]), ("ArrowRight", kind[2]), ("k", kind[1]), ("ArrowLeft", kind[0])):
        page.keyboard.press(key)
        page.wait_for_function("text => document.querySelector('.pair-head h2').textContent === text",
                               arg=wanted.partition("/")[2])  # fmt: skip
        assert wanted.partition("/")[2] in page.inner_text("#status")
    page.keyboard.press("k")
    assert "first" in page.inner_text("#status")
    page.locator(".search summary").click()
    page.get_by_role("searchbox").press_sequentially("jk")
    assert page.inner_text(".pair-head h2") == kind[0].partition("/")[2]


def test_an_image_is_found_by_its_id(page: Any, served: Any, attacked: str) -> None:
    show(page, view="pair", row="")
    page.get_by_role("searchbox").fill("fgsm " + attacked.rpartition("/")[2])
    page.keyboard.press("Enter")
    page.wait_for_selector(".cards-three")
    assert page.inner_text(".pair-head h2") == attacked.partition("/")[2]


def test_the_gain_slider_asks_one_thing_at_a_time_and_ends_at_the_newest(
    page: Any, served: Any, clean: str, looks: list[int]
) -> None:
    show(page, view="lab", base=clean)
    page.wait_for_selector(PREDICTION, timeout=WAIT)
    first, before = page.inner_text(PREDICTION), len(looks)
    slider = page.get_by_label("FGSM gain")
    slider.focus()
    for _ in range(12):
        slider.press("ArrowRight")
    wanted = percent(max(looked(page, served, base=f"row:{served.rows.index(clean)}", gain=12)["probabilities"]))
    page.wait_for_function(f"text => document.querySelector('{PREDICTION}').innerText.includes(text)", arg=wanted)
    assert page.inner_text(PREDICTION) != first
    assert max(looks) == 1
    assert 1 <= len(looks) - before <= 12
    page.wait_for_url(lambda url: "gain=12" in url)
    page.reload()
    page.wait_for_function(f"text => document.querySelector('{PREDICTION}')?.innerText.includes(text)", arg=wanted)


def test_a_pixel_is_painted_by_keyboard_and_downloaded(page: Any, served: Any, clean: str, screenshots: Path) -> None:
    show(page, view="lab", base=clean)
    page.wait_for_selector(PREDICTION, timeout=WAIT)
    page.get_by_role("radio", name="white").check()
    editor = page.get_by_role("application")
    editor.focus()
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft", "Enter"):
        editor.press(key)
    expected = stored(page, served, clean).copy()
    side = expected.shape[0]
    row, column = side // 2 - 1, side // 2 - 2
    expected[row, column] = 255
    page.wait_for_function("text => document.querySelector('.lab-grid > :last-child').innerText.includes(text)",
                           arg=f"1 of {side * side:,}")  # fmt: skip
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download as PNG").click()
    assert np.array_equal(np.asarray(Image.open(waiting.value.path()).convert("RGB")), expected)
    page.get_by_label("One-pixel vulnerability").check()
    page.wait_for_selector(".scale-row:not([hidden]) .colour-bar, .scale-row .hint", timeout=WAIT)
    page.wait_for_selector(".minimap", timeout=WAIT)
    page.screenshot(path=screenshots / "laboratory.png", full_page=True)
    page.get_by_role("button", name="Undo last").click()
    page.wait_for_function("text => document.querySelector('.lab-grid > :last-child').innerText.includes(text)",
                           arg=f"0 of {side * side:,}")  # fmt: skip
    page.wait_for_url(lambda url: "edits" not in url)


def test_an_upload_is_taken_and_garbage_is_refused_in_words(page: Any, served: Any, clean: str) -> None:
    show(page, view="lab")
    page.wait_for_selector(".image-panel")
    field = page.locator("input[type=file]")
    field.set_input_files({"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG no image at all"})
    page.get_by_role("alert").filter(has_text="image").wait_for(timeout=WAIT)
    page.wait_for_url(lambda url: "base=" not in url)
    sink = io.BytesIO()
    Image.fromarray(stored(page, served, clean)).resize((60, 40)).save(sink, format="PNG")
    field.set_input_files({"name": "mine.png", "mimeType": "image/png", "buffer": sink.getvalue()})
    page.wait_for_selector(PREDICTION, timeout=WAIT)
    page.wait_for_url(lambda url: "base=kept" in url)
    assert page.inner_text(".specimen-name") == "your image"
    assert page.locator(".image-panel .problem").is_hidden()


def test_a_search_ends_in_an_image_that_is_compared_with_its_origin(page: Any, served: Any, clean: str) -> None:
    show(page, view="lab", base=clean)
    page.wait_for_selector(PREDICTION, timeout=WAIT)
    page.get_by_role("combobox", name="Attack").select_option("pgd")
    page.get_by_role("button", name="Start the search").click()
    page.get_by_text(re.compile("What was found is now the image|Nothing was found")).first.wait_for(timeout=WAIT)
    page.wait_for_timeout(400)
    if "base=kept" in page.url:
        page.wait_for_selector(f"{PREDICTION} .wrong", timeout=WAIT)
        before = ".four > :nth-child(1) canvas"
        assert np.array_equal(drawn(page, before), stored(page, served, clean))
        assert np.abs(drawn(page, ".four > :nth-child(2) canvas").astype(int) - drawn(page, before)).max() <= 8


def test_a_search_can_be_stopped(page: Any, clean: str) -> None:
    show(page, view="lab", base=clean)
    page.wait_for_selector(PREDICTION, timeout=WAIT)
    page.get_by_role("combobox", name="Attack").select_option("one-pixel")
    with page.expect_request(lambda sent: sent.method == "DELETE" and "/api/live/jobs/" in sent.url):
        page.get_by_role("button", name="Start the search").click()
        page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start the search").and_(page.locator(":enabled")).wait_for(timeout=WAIT)
    assert page.get_by_role("button", name="Stop").is_hidden()


@pytest.mark.parametrize(("view", "chosen"), [("pair", "row"), ("lab", "base")])
def test_nothing_is_wider_than_a_phone(page: Any, clean: str, view: str, chosen: str, screenshots: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    show(page, view=view, **{chosen: clean})
    page.wait_for_selector(".verdicts, .content > .empty", timeout=WAIT)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=screenshots / f"{view}-phone.png", full_page=True)


def test_the_arithmetic_of_heat_maps(page: Any) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(8, 8)).astype(np.float32)
    other = rng.normal(size=(8, 8)).astype(np.float32)
    changed = [0, 9, 63]
    told = page.evaluate(
        """async ([text, more, changed]) => {
          const heat = await import("/static/heat/heat.js");
          const one = { side: 8, values: heat.floats(text) }, two = { side: 8, values: heat.floats(more) };
          const coarse = { side: 4, values: new Float32Array(16).fill(1) };
          return { limit: heat.limitOf([one, two]), mass: heat.massAt(one, changed, 8),
            gap: [...heat.difference(one, two).values], coarse: heat.massAt(coarse, [0, 1, 8, 9], 8),
            none: heat.massAt(one, [], 8), zero: heat.limitOf([{ side: 1, values: new Float32Array(1) }]) };
        }""",
        [*(base64.b64encode(one.tobytes()).decode() for one in (values, other)), changed],
    )
    both = np.abs(np.concatenate([values.ravel(), other.ravel()]))
    assert told["limit"] == pytest.approx(np.quantile(both, 0.995, method="inverted_cdf"))
    assert told["mass"]["mass"] == pytest.approx(np.abs(values.ravel()[changed]).sum() / np.abs(values).sum(), rel=1e-5)
    assert told["mass"]["area"] == pytest.approx(3 / 64)
    assert told["coarse"] == {"mass": 1 / 16, "area": 1 / 16}  # four pixels under one cell
    assert np.allclose(told["gap"], (other - values).ravel())
    assert told["none"] is None
    assert told["zero"] == 0


def test_without_a_server_the_pair_says_what_it_has(page: Any, served: Any, attacked: str, looks: list[int]) -> None:
    page.wait_for_selector("#tabs a")
    page.evaluate(
        """async (attacked) => {
          const [{ loadRun }, { createState }, { show }] = await Promise.all(
            ["data", "state", "pair/view"].map((name) => import(`/static/${name}.js`)));
          const run = await loadRun(), { image: picture, late } = run;
          run.drawn();
          await late;
          const uris = new Map();
          for (const row of [run.row(attacked), run.columns.pair[run.row(attacked)]]) {
            const blob = await fetch(picture(row)).then((answer) => answer.blob());
            uris.set(row, await new Promise((done) => {
              const reader = new FileReader();
              reader.onload = () => done(reader.result);
              reader.readAsDataURL(blob);
            }));
          }
          const offline = { ...run, live: false, image: (row) => uris.get(row) ?? "data:," };
          const values = Float32Array.from({ length: 16 }, (_, at) => at - 8);
          for (const [id, one] of [["bare", offline], ["stored", { ...offline, heat: () => ({ side: 4, values }) }]]) {
            const main = document.createElement("div");
            main.id = id;
            document.body.append(main);
            const state = createState(() => `#view=pair&row=${encodeURIComponent(attacked)}`, () => {});
            show(main, { run: one, state, say() {} });
          }
        }""",
        attacked,
    )
    page.wait_for_selector("#bare .cards-three")
    assert "heatprint serve" in page.inner_text("#bare .hint >> nth=-1")
    assert page.locator("#bare .boxes-three").count() == 0
    assert "no heat map stored" in page.inner_text("#bare .cards-three")
    assert "%" in page.inner_text("#bare .cards-three > :nth-child(2) .answer")
    page.wait_for_selector("#stored .colour-bar")
    assert page.locator("#stored .wait:visible").count() == 0
    assert looks == []
