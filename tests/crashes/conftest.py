"""Fixtures of the crash tests."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `harness` is shared with the programs that the tests start

import harness


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    """The run folder of a study that nobody disturbed, the same for all processes of the test run."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if shared.name.startswith("popen-") else shared  # of pytest-xdist
    out = shared / "undisturbed"
    with (shared / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "report.html").exists():
            work = harness.study(out)
            assert work.end() == 0, work.said
    return out


@pytest.fixture(scope="session")
def ask(tmp_path_factory):
    """Asks the program `faults`; each order has a folder of its own unless it names one."""
    program = subprocess.Popen(
        [sys.executable, harness.HERE / "faults.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def answer(**order):
        order.setdefault("folder", str(tmp_path_factory.mktemp("fault")))
        program.stdin.write(json.dumps(order).encode() + b"\n")
        program.stdin.flush()
        return json.loads(program.stdout.readline())

    with program:
        yield answer
        program.stdin.close()
    assert program.returncode == 0
