"""The inspector as a whole: every view, links, keys, narrow windows, and the report's own map."""

from __future__ import annotations

import re
from typing import Any

import pytest

WAIT = 30_000  # milliseconds, for slow machines
VIEWS = {
    "map": ".mv canvas",
    "pair": ".cards-three",
    "lab": ".lab-pictures",
    "clusters": "#atlas h2",
    "results": "#table-1 table",
    "detection": "main .empty, main table",
    "defences": "main .empty, main table",
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_every_view_is_drawn_and_fits_the_window(
    page: Any, served: Any, view: str, look: str, screenshots: Any
) -> None:
    if look == "phone":
        page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark" if look == "dark" else "light")
    page.wait_for_selector("#tabs a")
    row = next(row for row in served.rows if not row.startswith("clean/")).replace("/", "%2F")
    page.evaluate(f"location.hash = '#view={view}&row={row}'")
    page.wait_for_selector(f"main.view-{view}")
    page.wait_for_selector(VIEWS[view], timeout=WAIT)
    page.wait_for_timeout(400)
    page.screenshot(path=screenshots / f"{view}-{look}.png")
    assert page.locator("main .error").count() == 0
    assert page.get_attribute(f'#tabs a[data-view="{view}"]', "aria-current") == "page"
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_comes_after_the_map_is_offered_when_it_is_there(page: Any, served: Any) -> None:
    page.wait_for_selector("main canvas")
    held: list[Any] = []
    page.route("**/api/more", lambda route: held.append(route))
    page.goto(f"{served.origin}/#view=map&colour=confidence&least=9")
    page.reload()
    page.wait_for_selector("main canvas")
    page.wait_for_function("() => document.querySelector('.mv-count').textContent.includes('shown')")
    options = "() => [...document.querySelectorAll('.mv-controls select option')].map((one) => one.value)"
    assert "confidence" not in page.evaluate(options)
    assert page.locator(".mv-ramp").count() == 0
    for _ in range(100):
        if held:
            break
        page.wait_for_timeout(100)
    held[0].continue_()
    page.wait_for_selector(".mv-ramp")  # the colouring that the link asked for
    assert {"confidence", "gain", "moved"} <= set(page.evaluate(options))
    assert page.evaluate("document.querySelector('.mv-controls select').value") == "confidence"
    page.unroute("**/api/more")


def test_tabs_work_by_keyboard_and_each_view_takes_the_focus(page: Any) -> None:
    page.wait_for_selector("#tabs a")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    while page.evaluate("document.activeElement.dataset.view") != "results":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#table-1")
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_skip_link_stays_in_its_view(page: Any) -> None:
    page.wait_for_selector("#tabs a")
    page.evaluate("location.hash = '#view=results'")
    page.wait_for_selector("#table-1")
    page.focus("a.skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.wait_for_timeout(400)
    assert page.locator("#table-1").count() == 1
    assert "view=results" in page.url


def test_views_change_where_the_browser_refuses_addresses(page: Any) -> None:
    page.wait_for_selector("#tabs a")
    refused = "throw new DOMException('too often', 'SecurityError')"
    page.evaluate(f"() => {{ history.replaceState = () => {{ {refused}; }}; }}")
    page.click('#tabs a[data-view="results"]')
    page.wait_for_selector("#table-1")
    page.click('#tabs a[data-view="clusters"]')
    page.wait_for_selector("#atlas")
    assert page.locator("#table-1").count() == 0
    assert "view=" not in page.url


def test_a_link_shows_the_same_view_in_another_window(page: Any, served: Any) -> None:
    page.wait_for_selector(".mv canvas", timeout=WAIT)
    page.select_option("label:has-text('Colour') select", "label")
    page.get_by_role("button", name="PCA").click()
    page.wait_for_url(lambda url: "pca" in url)
    address = page.url
    assert "colour=label" in address
    assert "projection=pca" in address
    assert "token" not in address
    other = page.context.new_page()
    other.goto(address)
    other.wait_for_selector(".mv canvas", timeout=WAIT)
    assert other.input_value("label:has-text('Colour') select") == "label"
    assert other.get_attribute("button:has-text('PCA')", "aria-pressed") == "true"
    other.close()


def test_words_and_background_have_contrast(page: Any) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1, of the colours the page's text is set in, light and dark."""
    page.wait_for_selector("#tabs a")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours = page.evaluate(
            """() => Object.fromEntries(["paper", "raised", "ink", "soft", "accent", "right", "wrong"].map((name) =>
              [name, getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim()]))"""
        )
        for text in ("ink", "soft", "accent", "right", "wrong"):
            for back in ("paper", "raised"):
                assert contrast(colours[text], colours[back]) >= 4.5, (scheme, text, back)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_control_has_a_name(page: Any, served: Any) -> None:
    for view in ("map", "pair", "lab"):
        page.wait_for_selector("#tabs a")
        page.evaluate(f"location.hash = '#view={view}&row={served.rows[0].replace('/', '%2F')}'")
        page.wait_for_selector(VIEWS[view], timeout=WAIT)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, canvas[tabindex], a")].filter((one) =>
              !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length || one.title))
              .map((one) => one.outerHTML.slice(0, 120))"""
        )
        assert nameless == []


def test_a_server_that_went_away_is_told_in_words(chromium: Any, served: Any) -> None:
    context = chromium.new_context()  # one whose console may complain
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_selector("#tabs a")
    page.route("**/view/results", lambda route: route.abort())
    page.evaluate("location.hash = '#view=results'")
    page.wait_for_selector("main .error")
    assert "does not answer" in page.inner_text("main .error")
    context.close()


def test_the_report_carries_map_and_pairs_offline(chromium: Any, served: Any, screenshots: Any) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    sheet, errors, asked = context.new_page(), [], []
    sheet.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    sheet.on("pageerror", lambda error: errors.append(str(error)))
    sheet.on("request", lambda sent: asked.append(sent.url))
    sheet.goto((served.run / "report.html").as_uri())
    sheet.wait_for_selector("#explore-root .mv canvas", timeout=WAIT)
    shown = re.search(r"([\d,]+) of ([\d,]+) shown", sheet.inner_text("#explore-root .mv-counts"))
    assert shown
    assert int(shown[2]) == len(served.rows)
    sheet.focus("#explore-root .mv-points")
    sheet.keyboard.press("ArrowRight")
    sheet.wait_for_selector("#explore-root .cards-three")
    assert "%" in sheet.inner_text("#explore-root .cards-three")
    sheet.locator("#explore").screenshot(path=screenshots / "report-explore.png")
    context.close()
    assert errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
