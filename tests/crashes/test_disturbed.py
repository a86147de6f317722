"""What a person or a machine may do to a study at work: one clear line, nothing lost, and the same bytes in the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import Command, contents, first_difference, study, temporary

from heatprint.core.store import Store

RESUMES = "Everything finished so far is kept: the same command again resumes."


@pytest.fixture
def run(undisturbed, tmp_path) -> Path:
    """A copy of the undisturbed run."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 100 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount a file system here ({mounted.stderr.decode().strip()})")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as sink:
            while sink.write(bytes(1 << 12)):
                pass
    except OSError:
        return ballast
    raise AssertionError("the disk has no end")


def unfinished(run: Path) -> Path:
    """Take away what some steps made: parts of an attack, a model, all that comes after."""
    for name in ("attacks/clear/pgd", "models/fgsm_immune", "attacks/fgsm_immune", "figures", "atlas/cards"):
        shutil.rmtree(run / name)
    return run


def told(command: Command) -> str:
    """The only line of an error."""
    (line,) = [line for line in command.said.splitlines() if line.startswith("heatprint: ")]
    assert "Traceback" not in command.said
    return line


def test_a_full_disk_is_told_in_one_line(small_disk):
    fill(small_disk)
    work = study(small_disk / "run", log=small_disk.with_name("log"))
    assert work.end() == 2
    assert "No space left on device" in told(work)
    assert str(small_disk / "run") in told(work)
    assert told(work).endswith("Make room on that disk: what is finished is kept, and the same command again goes on.")


def test_a_disk_that_can_only_be_read_is_told_in_one_line(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    work = study(small_disk / "run", log=small_disk.with_name("log"))
    assert work.end() == 2
    assert (
        told(work) == f"heatprint: Read-only file system: {small_disk}/run. It can only be read: name another folder."
    )


def test_a_folder_without_permission_is_told_in_one_line(tmp_path):
    """Root may write everywhere, but for what the kernel itself keeps."""
    folder = tmp_path / "closed" if os.geteuid() else Path("/proc/sys")
    if os.geteuid():
        folder.mkdir(mode=0o555)
    work = study(folder / "run", log=tmp_path / "log")
    assert work.end() == 2
    assert f"{folder}/run" in told(work)


def test_a_second_study_of_a_folder_is_refused_and_touches_nothing(tmp_path):
    store = Store(tmp_path / "run")
    with store.writing():
        before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.root.iterdir()}
        work = study(store.root)
        assert work.end() == 2
        assert told(work) == (
            f"heatprint: store: another process is writing to {store.root}. Wait for it, or name another folder."
        )
        assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.root.iterdir()} == before


def importing(command: Command) -> bool:
    """Whether a command is at the import of torch."""
    return "libtorch" in Path(f"/proc/{command.process.pid}/maps").read_text()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_modules_are_imported_ends_with_one_line(tmp_path, times):
    work = study(tmp_path / "run", program=("-m", "heatprint"))
    assert work.until(lambda: importing(work))
    for _ in range(times):
        work.signal(signal.SIGINT)
    assert work.end() == 130
    assert work.said.strip() in (f"Stopped. {RESUMES}", "Stopped.")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_one_line_and_nothing_else(undisturbed, small_disk):
    out, log = unfinished(Path(shutil.copytree(undisturbed, small_disk / "run"))), small_disk.with_name("log")
    kept = contents(out)
    del kept["metrics.json"]  # a study at work is not a finished one
    work = study(out, log=log)
    assert work.until(lambda: not (out / "metrics.json").exists()), "it has looked whether there is room, and begins"
    ballast = fill(small_disk)
    assert work.end() == 2
    assert "No space left on device" in told(work)
    now = contents(out)
    assert {name: now.get(name) for name in kept} == kept
    again = study(out, log=log)
    assert again.end() == 2, "there is no more room than before"
    ballast.unlink()
    last = study(out, log=log)
    assert last.end() == 0, last.said
    assert first_difference(undisturbed, out) is None
    assert not temporary(out)


@pytest.mark.slow
def test_of_two_studies_of_a_folder_the_second_is_refused_and_the_first_undisturbed(undisturbed, tmp_path):
    out = tmp_path / "run"
    first = study(out)
    assert first.until(lambda: (out / "recipe.json").exists())
    second = study(out, workers=2, log=tmp_path / "second")
    assert second.end() == 2
    assert "another process is writing" in told(second)
    assert first.process.poll() is None
    assert first.end() == 0, first.said
    assert first_difference(undisturbed, out) is None


MOMENTS = {
    "reading images": "recipe.json",
    "training": "images/_done/images.json",
    "starting workers": "models/clear/card.json",
    "in the workers": "attacks/clear/pgd/test/_done/part-00000.json",
    "comparing": "pairs/fgsm/_done/part-00000.json",
    "drawing the map": "signatures/one-pixel/_done/part-00000.json",
    "at the end": "atlas/border/_done/part-00000.json",
}
"""What is there when a study begins with something."""


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_at_any_moment_ends_with_one_line_and_costs_nothing(undisturbed, tmp_path, times):
    """As from a terminal: all processes hear it. Pressed again, it ends the command where it stands."""
    out = tmp_path / "run"
    for moment, there in MOMENTS.items():
        work = study(out, workers=2)
        assert work.until((out / there).exists), moment
        for number in range(times):
            time.sleep(number * 0.6)
            if work.process.poll() is None:
                work.signal(signal.SIGINT)
        assert work.end() == 130, (moment, work.said)
        assert work.said.rstrip().endswith(f"Stopped. {RESUMES}"), (moment, work.said)
        assert "Traceback" not in work.said, (moment, work.said)
        assert "resource_tracker" not in work.said, (moment, work.said)
    work = study(out, workers=2)
    assert work.end() == 0, work.said
    assert "resource_tracker" not in work.said
    assert first_difference(undisturbed, out) is None
    assert not temporary(out)
