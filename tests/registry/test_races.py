"""Two promotions at once, and locks: one wins, the other is told who; a dead holder blocks nobody."""

import json
import os
import signal
import time

import pytest

from esa_notebooks.registry.change import RegistryConflict, RegistryError, alone
from esa_notebooks.registry.journal import check, in_production
from tests.registry.registry_world import ADA, BEN, NAME, T0, World, timedelta

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def beside(acts) -> list[str]:
    """Every act in a process of its own, let go at the same moment; what each of them said."""
    gates, answers, pids = os.pipe(), [], []
    for act in acts:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            said = "nothing"
            try:
                os.close(gates[1])
                os.write(write_end, b".")
                os.read(gates[0], 1)  # returns when the parent closes its end
                said = f"done {act()}"
            except RegistryError as e:
                said = f"{type(e).__name__}: {e}"
            except BaseException as e:
                said = f"failed: {e!r}"
            finally:
                os.write(write_end, said.encode())
                os._exit(0)
        os.close(write_end)
        answers.append(read_end), pids.append(pid)
    assert [os.read(answer, 1) for answer in answers] == [b"."] * len(pids), "every child stands at the gate"
    os.close(gates[1]), os.close(gates[0])
    told = []
    for pid, answer in zip(pids, answers, strict=True):
        with os.fdopen(answer) as file:
            told.append(file.read())
        os.waitpid(pid, 0)
    return told


@pytest.fixture
def pending(again, tmp_path):
    """A challenger that two people have signed for, in a store this process has not opened since."""
    registry = again.registry()
    version = again.challenge(registry, 3, "2", T0 + 2 * DAY)
    both = [again.signed(registry, version, seed=seed, at=T0 + 2 * DAY) for seed in (1, 2)]
    other_name = f"sqlite:///{again.folder}/../{again.folder.name}/mlflow.db"  # which this process has not opened
    return World(again.folder, other_name, again.detectors), both


def test_two_approvals_at_once(pending):
    world, both = pending
    told = beside(
        [lambda e=e: world.registry().approve(NAME, json.loads(json.dumps(e)), T0 + 2 * DAY + HOUR) for e in both]
    )
    won, lost = sorted(told, key=lambda t: not t.startswith("done"))
    assert won == "done 3" and lost.startswith("RegistryConflict: No version of thermal-anomalies awaits approval")
    registry = world.registry()
    entries = registry.entries()
    winner = entries[-2].by if entries[-1].event == "refused" else entries[-1].by
    assert winner in (ADA, BEN) and f"Version 3 was approved by {winner}" in lost
    assert check(entries) == [] and registry.audit() == [] and in_production(entries, NAME) == "3"


def test_an_approval_and_a_rollback_at_once(pending):
    world, (envelope, _) = pending
    told = beside(
        [
            lambda: world.registry().approve(NAME, envelope, T0 + 2 * DAY + HOUR),
            lambda: world.registry().rollback(NAME, BEN, "too many alarms", at=T0 + 2 * DAY),
        ]
    )
    assert not any(t.startswith("failed") for t in told), told
    assert told[1].startswith("done"), "the way back is always open"
    registry = world.registry()
    assert check(registry.entries()) == [] and registry.audit() == []
    assert in_production(registry.entries(), NAME) == told[1].split()[1]


def test_a_live_holder_is_named_and_a_dead_one_blocks_nobody(tmp_path):
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        with alone(tmp_path):
            os.write(go, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    try:
        with pytest.raises(RegistryConflict, match=f"process {pid} since"), alone(tmp_path, 0.2):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with alone(tmp_path, 0.2):
        assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()
