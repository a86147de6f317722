"""The documentation is true: links lead somewhere, commands and names exist, decisions are listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_decision_is_listed_and_has_its_parts():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for page in folder.glob("0*.md"):
        text = page.read_text()
        assert page.name in index
        for part in ("Status:", "**Problem.**", "**Decision.**", "**Consequences.**"):
            assert part in text, (page.name, part)


def test_the_readme_s_two_commands_are_the_promised_ones():
    text = (ROOT / "README.md").read_text()
    assert "python -m pip install . && heatprint study --out runs/first" in text
    assert 'python -m pip install ".[test]" && pytest' in text
    assert 'python -m pip install ".[test]" && pytest' in (ROOT / ".ci" / "run").read_text()


def test_the_readme_lists_every_recipe():
    from heatprint.study import recipe_names

    text = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in text for name in recipe_names())


def test_the_readme_s_library_example_runs(tmp_path, monkeypatch):
    """On a small run and a folder of drawn images in place of the reader's own."""
    from heatprint.data.sources import write_menagerie
    from heatprint.models import load, save

    monkeypatch.chdir(tmp_path)
    write_menagerie(tmp_path / "dogs-cats-images", train=4, test=6, size=112)
    save(load("vgg-slim", classes=("cats", "dogs"), size=112), tmp_path / "runs/first/models/clear")
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert code
    names: dict[str, object] = {}
    exec(code[1], names)
    assert names["heat"].shape == (6, 112, 112)


def test_every_public_thing_says_what_it_is():
    import ast

    for path in (ROOT / "src" / "heatprint").rglob("*.py"):
        tree = ast.parse(path.read_text())
        functions = ast.FunctionDef | ast.AsyncFunctionDef
        public = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef | functions)]
        nested = {id(c) for n in public if isinstance(n, functions) for c in ast.walk(n) if c is not n}
        for node in public:
            if not node.name.startswith("_") and id(node) not in nested:
                assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name}"
