"""Write ci.txt and lowest.txt anew: `make lock`.

ci.txt holds one version of everything that `pip install ".[test,release]"` takes today; lowest.txt holds the lower
bounds of pyproject.toml that the tests run against. Both are constraints: they say which version, not what to install.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
LOCKED = ".[test,release]"
TESTED_LOWEST = "test"
HEAD = "# Written by `make lock`.\n"


def resolved(what: str) -> dict[str, str]:
    """Name and version of everything that pip would install into an empty environment."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    told = subprocess.run([*command, what], cwd=HERE.parent, check=True, stdout=subprocess.PIPE).stdout
    found = [item["metadata"] for item in json.loads(told)["install"]]
    return {item["name"]: item["version"] for item in found if item["name"] != "heatprint"}


def bounds(project: dict, extra: str | None = None) -> Iterator[tuple[str, str]]:
    """Name and lower bound of the core, or of an extra and the extras it names."""
    for text in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        if inner := re.fullmatch(r"heatprint\[(.+)\]", text):
            for one in inner[1].split(","):
                yield from bounds(project, one)
        else:
            name, bound = text.split(">=")
            yield name, bound


def write(name: str, versions: dict[str, str]) -> None:
    """One `name==version` a line, in the order of the names."""
    lines = sorted((f"{package}=={version}\n" for package, version in versions.items()), key=str.lower)
    (HERE / name).write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    write("lowest.txt", {**dict(bounds(project)), **dict(bounds(project, TESTED_LOWEST))})
    write("ci.txt", resolved(LOCKED))
