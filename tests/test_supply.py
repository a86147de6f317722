"""What heatprint is made of: declared, locked, licensed, and silent towards the network."""

from __future__ import annotations

import ast
import importlib.metadata as metadata
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "heatprint"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# where the module is called otherwise than what is installed, and it may not be installed to be asked
MODULES = {"art": "adversarial-robustness-toolbox"}
# parts of a declared package that have a name of their own, and the package that brings them
PARTS = {"markupsafe": "jinja2", "pydantic-core": "pydantic", "starlette": "fastapi"}

PERMITTED = {
    "0BSD", "Apache 2.0", "Apache License, Version 2.0", "Apache-2.0", "BSD", "BSD 2-Clause License",
    "BSD 3-Clause License", "BSD License", "3-Clause BSD License", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "ISC License", "LLVM-exception", "MIT", "MIT License", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "PSFL",
    "Apache Software License", "Mozilla Public License 2.0 (MPL 2.0)", "Python Software Foundation License", "Zlib",
}  # fmt: skip
# torch brings NVIDIA's runtime libraries, which may be used and passed on, not changed; nothing else may be closed
NVIDIA = {"LicenseRef-NVIDIA-Proprietary", "NVIDIA Proprietary Software", "Other/Proprietary License"}
# whose metadata name no licence, or none that is asked of us here; what their licence files say
BY_HAND = {
    "cuda-toolkit": "NVIDIA: holds no files, names the packages nvidia-*",
    "docutils": "public domain and BSD; the GPL is that of an editor's mode, and only twine reads texts with it",
    "skops": "MIT",
}


def declared(extra: str | None = None) -> dict[str, Requirement]:
    """The requirements of the core or of an extra by name, with those of the extras it names."""
    found: dict[str, Requirement] = {}
    for text in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        one = Requirement(text)
        if one.name == "heatprint":
            for inner in one.extras:
                found |= declared(inner)
        else:
            found[canonicalize_name(one.name)] = one
    return found


def locked(name: str) -> dict[str, str]:
    """Versions by name, from a file of constraints."""
    lines = [line for line in (ROOT / "requirements" / name).read_text().splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines]
    assert all(found), "name==version and nothing else: no address, no path, no local build"
    return {canonicalize_name(one[1]): one[2] for one in found if one}


@cache
def imported() -> dict[str, set[str]]:
    """Packages that the source imports, in whatever way, and the files that do."""
    known, found = metadata.packages_distributions(), defaultdict(set)
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for module in names_of(node):
                top = module.partition(".")[0]
                if top != "heatprint" and top not in sys.stdlib_module_names:
                    package = known.get(top, [MODULES.get(top, top)])[0]
                    found[canonicalize_name(package)].add(str(path.relative_to(SOURCE)))
    return found


def names_of(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [one.name for one in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case ast.Call(func=ast.Name(id="import_module" | "find_spec"), args=[ast.Constant(value=str(module))]):
            return [module]
    return []


def test_everything_imported_is_declared():
    extras = {name for extra in PROJECT["optional-dependencies"] for name in declared(extra)}
    found = imported()
    assert len(found) > 20
    for package, files in found.items():
        assert PARTS.get(package, package) in declared() | dict.fromkeys(extras), f"{package} in {sorted(files)}"


@pytest.mark.parametrize(("part", "whole"), PARTS.items())
def test_parts_come_with_the_package_that_is_declared(part, whole):
    brought = [Requirement(text) for text in metadata.requires(whole) or []]
    assert any(canonicalize_name(one.name) == part and one.marker is None for one in brought)


def test_everything_declared_is_imported():
    unused = declared().keys() - imported().keys()
    assert not unused, "declared and used nowhere"


def test_errors_name_the_extra_that_holds_the_package():
    from heatprint.attacks import ATTACKS
    from heatprint.cli_guard import NEEDED

    named = {(package, "web") for package in NEEDED.values()}
    for kind in map(ATTACKS.load, ATTACKS.names()):
        if hasattr(kind, "distribution"):
            named.add((kind.distribution, kind.extra))
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="MissingExtra"),
                    args=[ast.Constant(value=package), ast.Constant(value=extra), *_],
                ):
                    named.add((package, extra))
    assert {"captum", "foolbox", "h5py", "kagglehub", "torchattacks", "uvicorn"} <= {package for package, _ in named}
    for package, extra in named:
        assert canonicalize_name(package) in declared(extra), (package, extra)


def test_the_lock_holds_a_permitted_version_of_everything_that_is_tested():
    versions = locked("ci.txt")
    wanted = [*declared().values(), *declared("test").values(), *declared("release").values()]
    for one in wanted:
        assert versions[canonicalize_name(one.name)] in one.specifier, one
    here = Requirement("heatprint[test]")
    for name, extra in closure({(canonicalize_name(here.name), extra) for extra in here.extras}):
        assert name in versions or name == "heatprint", f"{name} {extra}: run `make lock`"


def test_the_lowest_versions_are_the_bounds():
    bounds = {name: str(one.specifier).removeprefix(">=") for name, one in (declared() | declared("test")).items()}
    assert locked("lowest.txt") == bounds, "run `make lock`"


def closure(wanted: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Pairs of a package and an extra of it (or none): those given, and all they require, as far as installed."""
    seen: set[tuple[str, str]] = set()
    while wanted:
        name, extra = wanted.pop()
        seen.add((name, extra))
        try:
            needs = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        for one in needs:
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                wanted |= {(canonicalize_name(one.name), inner) for inner in ("", *one.extras)} - seen
    return seen


def licences(name: str) -> list[str]:
    """What the metadata of a package declare, the most exact of the three ways first."""
    told = metadata.metadata(name)
    plain = (told["License"] or "").strip()
    if (told["License-Expression"] or plain) and (told["License-Expression"] or "\n" not in plain):
        return [one for one in re.split(r" AND | OR | WITH |[()]", told["License-Expression"] or plain) if one]
    kinds = [text.split(" :: ") for text in told.get_all("Classifier") or [] if text.startswith("License")]
    return [kind[-1] for kind in kinds if kind[-1] != "OSI Approved"]  # which says nothing


def test_every_dependency_has_a_permitted_licence():
    everything = closure({("heatprint", extra) for extra in ("", *PROJECT["optional-dependencies"])})
    installed = {name for name, _ in everything if any(metadata.distributions(name=name))}
    assert {"torch", "numpy", "pytest", "fastapi"} <= installed
    for name in sorted(installed - BY_HAND.keys()):
        permitted = PERMITTED | NVIDIA if name.startswith("nvidia-") else PERMITTED
        assert licences(name), f"{name} declares no licence: look, and write it into BY_HAND"
        assert set(licences(name)) <= permitted, (name, licences(name))


# In every Python process that the test starts: tells of each look out of this machine, and refuses it.
WATCH = """
import os, sys

def watch(event, told):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = told[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(told[1], tuple):
        host = told[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in (None, "", "localhost", "::1") and not host.startswith("127."):
        with open(os.environ["LOOKS"], "a") as file:
            file.write(f"{event} {host} by {sys.argv}\\n")
        raise PermissionError(f"no network: {host}")

sys.addaudithook(watch)
"""


@pytest.fixture
def offline(tmp_path):
    """Runs Python in an empty folder; gives what it wrote and every look out of this machine, refused."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    looks = tmp_path / "looks.txt"
    around = {**os.environ, "PYTHONPATH": str(tmp_path / "watch"), "LOOKS": str(looks)}

    def run(*arguments: str) -> tuple[subprocess.CompletedProcess[str], str]:
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=around, capture_output=True, text=True,
                              check=False)  # fmt: skip
        return done, looks.read_text() if looks.exists() else ""

    return run


def test_a_look_out_of_the_machine_is_seen_and_refused(offline):
    """What the two tests below rest on; 192.0.2.1 belongs to nobody."""
    done, looks = offline("-c", "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)")
    assert "no network: 192.0.2.1" in done.stderr
    assert "socket.getaddrinfo 192.0.2.1" in looks
    done, looks = offline("-c", "import urllib.request; urllib.request.urlopen('http://example.invalid/')")
    assert done.returncode == 1
    assert "example.invalid" in looks


IMPORT_ALL = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("ignore")
barred = set(sys.argv[1].split())

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in barred:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import heatprint
names = [one.name for one in pkgutil.walk_packages(heatprint.__path__, "heatprint.", onerror=lambda name: None)]
web = [name for name in names if name.startswith("heatprint.web")]
for name in names:
    if name not in web and name != "heatprint.__main__":
        importlib.import_module(name)
barred.clear()
for name in web:
    importlib.import_module(name)
print(len(names), len(web))
"""


def test_importing_everything_asks_nobody_and_only_the_web_needs_an_extra(offline):
    extras = {name for extra in PROJECT["optional-dependencies"] for name in declared(extra)} - declared().keys()
    owners = metadata.packages_distributions()
    barred = {module for module, names in owners.items() if canonicalize_name(names[0]) in extras}
    assert {"fastapi", "h5py", "pytest"} <= barred
    done, looks = offline("-c", IMPORT_ALL, " ".join(barred))
    assert done.returncode == 0, done.stderr
    modules, web = map(int, done.stdout.split())
    assert modules > 200
    assert web > 5
    assert looks == ""


@pytest.mark.slow
def test_a_study_and_what_is_asked_of_its_run_ask_nobody(offline):
    run, model = "runs/tiny", "runs/tiny/models/clear"
    steps = [
        ["doctor"],
        ["study", "--recipe", "tiny", "--out", run],
        ["report", run],
        ["data", "menagerie", "--out", "animals", "--train", "40", "--test", "4", "--size", "64"],
        ["explain", "animals/test_set", "--model", model, "--out", "maps"],
        ["atlas", "animals/training_set", "--model", model, "--out", "atlas.html"],
        ["export", run, "--to", "csv", "--out", "table"],
        ["evaluate", run, "--data", "menagerie", "--card", "--arm", "fgsm_immune", "--eps", "2/255"],
    ]
    for step in steps:
        done, looks = offline("-m", "heatprint", *step)
        assert done.returncode == 0, (step, done.stderr)
        assert looks == "", step
