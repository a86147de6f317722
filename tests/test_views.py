"""Sections of the report by themselves, and our own Markdown as tables."""

from __future__ import annotations

import re

from heatprint.report.bundle import STATIC, bundled
from heatprint.report.views import sections


def test_every_table_is_a_section_of_its_own():
    lines = ["## One", "", "Words.", "", "| a | b |", "|---|---|", "| 1 | **2** |", "", "| c |", "|---|", "| 3 |", "",
             "## Two", "", "More."]  # fmt: skip
    found = sections(lines)
    assert [one.title for one in found] == ["One", "", "Two"]
    assert [list(one.words) for one in found] == [["Words."], [], ["More."]]
    assert [list(one.heads) for one in found] == [["a", "b"], ["c"], []]
    assert [[list(row) for row in one.rows] for one in found] == [[["1", "2"]], [["3"]], []]


def test_a_bundle_holds_each_module_once_before_those_that_need_it():
    script = bundled("explore")
    names = re.findall(r"^const (module_\w+) = \(\(\) => \{", script, re.M)
    assert len(names) == len(set(names))
    assert names[-1] == "module_explore"
    for place, name in enumerate(names):
        own = script.split(f"const {name} = ", 1)[1].split("\n})();", 1)[0]
        assert set(re.findall(r"\} = (module_\w+);", own)) <= set(names[:place])
    assert not re.search(r"^\s*(import|export)\b", script, re.M)


def test_scripts_load_nothing_from_elsewhere_and_write_no_markup():
    for path in (one for one in STATIC.rglob("*") if one.suffix in (".js", ".css", ".html")):
        text = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
