"""The command line as a person meets it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

MAIN = "from heatprint.cli import main; main()"


def heatprint(*arguments, check=True):
    done = subprocess.run([sys.executable, "-c", MAIN, *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_help_names_every_command_and_wakes_nothing_heavy():
    code = "import sys\ntry:\n from heatprint.cli import main; main()\nfinally:\n print(sorted({'torch', 'numpy', 'pydantic', 'pyarrow'} & set(sys.modules)))"  # noqa: E501
    out = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True).stdout
    for command in ("study", "report", "explain", "atlas", "export", "list", "data", "doctor"):
        assert command in out
    assert out.rstrip().endswith("[]")


@pytest.mark.slow
def test_help_returns_in_half_a_second():
    def once():
        start = time.monotonic()
        heatprint("--help")
        return time.monotonic() - start

    assert min(once() for _ in range(5)) < 0.5


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        ("attacks", "one-pixel"),
        ("explainers", "lrp.sequential_preset_a_flat"),
        ("signatures", "umap"),
        ("defences", "retrain"),
        ("models", "vgg16-paper"),
        ("recipes", "paper-slim"),
    ],
)
def test_list(room, expected):
    assert expected in heatprint("list", room).stdout


def test_attacks_are_listed_with_their_taxonomy():
    line = next(text for text in heatprint("list", "attacks").stdout.splitlines() if text.startswith("one-pixel"))
    assert "score" in line
    assert "l0" in line
    assert "Su, Vargas, Sakurai" in line


def test_doctor_names_versions_device_space_and_extras():
    out = heatprint("doctor").stdout
    for word in ("torch", "python", "cpu", "memory free", "disk free", "extra [hub]"):
        assert word in out


def test_errors_are_one_message_and_status_2(tmp_path):
    done = heatprint("study", "--recipe", "quik", "--out", str(tmp_path / "r"), check=False)
    assert done.returncode == 2
    assert "Did you mean 'quick'" in done.stderr
    assert "Traceback" not in done.stderr
    done = heatprint("study", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "r"), check=False)
    assert done.returncode == 2
    assert "Check the path" in done.stderr
    done = heatprint("report", str(tmp_path / "nowhere"), check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_menagerie_is_written_in_kaggle_s_layout(tmp_path):
    heatprint("data", "menagerie", "--out", str(tmp_path / "m"), "--train", "4", "--test", "2", "--size", "32")
    found = sorted(p.relative_to(tmp_path / "m").as_posix() for p in (tmp_path / "m").rglob("*.png"))
    test, train = ["test_set/cats/cat.0.png", "test_set/dogs/dog.0.png"], "training_set"
    assert found == test + [f"{train}/{kind}s/{kind}.{i}.png" for kind in ("cat", "dog") for i in (0, 1)]
    done = heatprint("data", "menagerie", "--out", str(tmp_path / "m"), check=False)
    assert done.returncode == 2
    assert "not an empty folder" in done.stderr
