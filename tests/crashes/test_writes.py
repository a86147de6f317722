"""Whatever happens at whatever write, the work done again ends as if it had not happened."""

from __future__ import annotations

import signal

import pytest

FAILED, STOPPED = 20, 21
ENDS = {"killed": -signal.SIGKILL, "torn": -signal.SIGKILL, "full": FAILED, "read-only": FAILED, "stopped": STOPPED}
WORKS = ("begin", "parts", "fewer parts", "images", "checkpoints", "model")


def check(outcomes, fault):
    assert outcomes
    for one in outcomes:
        assert one["ends"] == [ENDS[fault], 0], one
        assert one["differs"] is None, one
        assert one["left"] == [], one
        assert one["twice"] <= 1, "no more than a part, or an epoch, is computed again"


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("fault", ["killed", "full"])
def test_a_piece_of_work_survives_a_fault_at_every_write(ask, work, fault):
    check(ask(work=work, fault=fault), fault)


@pytest.mark.parametrize("fault", ["torn", "read-only", "stopped"])
def test_a_step_survives_the_other_faults_at_every_write(ask, fault):
    check(ask(work="parts", fault=fault), fault)


@pytest.mark.slow
@pytest.mark.parametrize("work", [work for work in WORKS if work != "parts"])
@pytest.mark.parametrize("fault", ["torn", "read-only", "stopped"])
def test_a_piece_of_work_survives_the_other_faults_at_every_write(ask, work, fault):
    check(ask(work=work, fault=fault), fault)


@pytest.mark.slow
@pytest.mark.parametrize("work", ["training", "defence"])
@pytest.mark.parametrize("fault", ENDS)
def test_a_training_survives_a_fault_at_every_write(ask, work, fault):
    check(ask(work=work, fault=fault), fault)
