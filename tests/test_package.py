"""What is published: a source archive and a wheel, complete, the same from either, and working away from the source.

Needs the extra that builds them: `python -m pip install ".[test,release]"`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("build") is None, reason="needs the extra [release]"),
]


def build(source: Path, to: Path, *what: str) -> Path:
    """The one file that was written."""
    command = [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", str(to), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = to.iterdir()
    return made


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("archive"), "--sdist")


@pytest.fixture(scope="module")
def unpacked(archive, tmp_path_factory):
    to = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as file:
        file.extractall(to, filter="data")
    (folder,) = to.iterdir()
    return folder


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory):
    return build(unpacked, tmp_path_factory.mktemp("wheel"), "--wheel")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a command of an environment that holds the wheel and borrows the packages of this one."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", symlinks=True)
    commands = home / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", commands / "python"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    # folders named in a .pth are searched, but their own .pth files, by which a checkout gets in, are not read
    (own,) = (home / "venv" / "lib").glob("python*/site-packages")
    (own / "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))

    def run(command: str, *arguments: str) -> str:
        done = subprocess.run([commands / command, *arguments], cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_of_the_archive_is_the_wheel_of_the_checkout(wheel, tmp_path):
    assert wheel.read_bytes() == build(ROOT, tmp_path, "--wheel").read_bytes()


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel):
    held = {PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()}
    own = {path for path in held if path.parts[0] == "heatprint"}
    there = {path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert own == {PurePosixPath(path.relative_to(SOURCE)) for path in there}
    endings = {".py", ".pyi", ".typed", ".toml", ".j2", ".js", ".css", ".html"}
    assert {path.suffix for path in own} == endings
    rest = {"/".join(path.parts[1:]) for path in held - own}
    assert rest == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}


def test_the_archive_holds_what_a_developer_needs(unpacked):
    held = {path.name for path in unpacked.iterdir()}
    assert held == {
        "src", "tests", "docs", "benchmarks", "requirements", ".ci", "Makefile", "pyproject.toml", "PKG-INFO",
        ".gitignore", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE",
    }  # fmt: skip
    assert not [*unpacked.rglob("__pycache__"), *unpacked.rglob("*.egg-info")]


def test_the_metadata_are_complete(archive, wheel):
    command = [sys.executable, "-m", "twine", "check", "--strict", archive, wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_installed_wheel_works_without_the_source(installed):
    told = installed("python", "-c", "import heatprint, sys; print(heatprint.__file__, *sys.path, sep='\\n')")
    place, *path = told.splitlines()
    assert "site-packages" in place
    assert str(SOURCE) not in path
    assert installed("heatprint", "--version").split() == ["heatprint", importlib.metadata.version("heatprint")]
    assert "torch" in installed("heatprint", "doctor")
    assert {"tiny", "quick", "paper"} <= set(installed("heatprint", "list", "recipes").split())
