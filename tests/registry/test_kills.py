"""A process that promotes is killed, at every write and at random moments: the old state or the new, nothing else."""

import json
import os
import random
import shutil
import signal
import time

import pytest

from esa_notebooks.registry.backup import _moved
from esa_notebooks.registry.journal import check, in_production
from tests.registry.registry_world import ADA, NAME, T0, World, timedelta

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
WRITES = (
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_registered_model_tag",
    "create_model_version",
)


@pytest.fixture(scope="module")
def ready(template, original, tmp_path_factory):
    """Version 2 is the champion, version 3 awaits approval, and its approval is signed."""
    folder = tmp_path_factory.mktemp("ready") / "world"
    shutil.copytree(original, folder)
    _moved(folder / "mlflow.db", {str(original / "mlruns"): str(folder / "mlruns")})
    world = World(folder, f"sqlite:///{folder}/mlflow.db", template)
    registry = world.registry()
    version = world.challenge(registry, 3, "2", T0 + 2 * DAY)
    (folder / "approval.json").write_text(json.dumps(world.signed(registry, version, at=T0 + 2 * DAY)))
    return world


def copy_of(world: World, place) -> World:
    """A copy that no process has opened yet, so that a child may."""
    shutil.copytree(world.folder, place)
    _moved(place / "mlflow.db", {str(world.folder / "mlruns"): str(place / "mlruns")})
    return World(place, f"sqlite:///{place}/mlflow.db", world.detectors)


def approve(world: World, registry) -> None:
    registry.approve(NAME, json.loads((world.folder / "approval.json").read_text()), T0 + 2 * DAY + HOUR)


def challenge(world: World, registry) -> None:
    world.challenge(registry, 4, "2", T0 + 3 * DAY)


def rollback(world: World, registry) -> None:
    registry.rollback(NAME, ADA, "false alarms again", at=T0 + 3 * DAY)


def dying(registry, nth: int) -> None:
    """Let this process kill itself before or after its n-th write: point 2k is before write k, 2k + 1 after it."""
    from esa_notebooks.registry import journal

    points = [0]

    def counted(act):
        def wrapped(*given, **more):
            if points[0] == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            done = act(*given, **more)
            if points[0] + 1 == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            points[0] += 2
            return done

        return wrapped

    journal.append_line = counted(journal.append_line)
    for name in WRITES:
        setattr(registry.store.client, name, counted(getattr(registry.store.client, name)))


def child(world: World, act, nth: int | None = None, after_s: float | None = None) -> tuple[bool, float]:
    """Do `act` in a process of its own that dies: (whether it was killed, seconds from its beginning)."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            registry = world.registry()
            if nth is not None:
                dying(registry, nth)
            os.write(write_end, b"x")
            act(world, registry)
            code = 0
        finally:
            os._exit(code)
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)
    began = time.monotonic()
    if after_s is not None:
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, "the child failed instead of being killed"
    return killed, time.monotonic() - began


def sound(world: World, before: str, after: str | None):
    """The registry as the next process finds it: one of two states, and every account agrees."""
    registry = world.registry()
    entries = registry.entries()
    now = in_production(entries, NAME)
    assert now in (before, after) and registry.store.model(NAME).aliases.get("champion") == now
    assert check(entries) == [] and registry.audit() == []
    return registry, now


AFTER_EACH = (0, *range(1, 60, 2))  # before the first write, and after each: every state that can be on the disk


@pytest.mark.parametrize(
    "act, before, after, points",
    [
        pytest.param(approve, "2", "3", AFTER_EACH, id="approve"),
        pytest.param(rollback, "2", "1", AFTER_EACH, id="rollback"),
        pytest.param(approve, "2", "3", range(60), id="approve, both sides", marks=pytest.mark.slow),
        pytest.param(rollback, "2", "1", range(60), id="rollback, both sides", marks=pytest.mark.slow),
        pytest.param(challenge, "2", "2", range(60), id="challenge, both sides", marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_write(ready, silent, tmp_path, act, before, after, points):
    states = []
    for nth in points:
        world = copy_of(ready, tmp_path / str(nth))
        killed, _ = child(world, act, nth)
        registry, now = sound(world, before, after)
        if not killed:
            break
        versions = len(registry.store.model(NAME).versions)
        states.append((now, versions))
        if act is not challenge and now == before:
            act(world, registry)  # what was undone can be done again
            assert in_production(registry.entries(), NAME) == after and registry.audit() == []
    assert not killed and nth >= 8
    assert states[0] == (before, 3), "killed before the first write: as if nothing had been"
    assert states == sorted(states, key=lambda s: states.index(s)), "once the new state is reached it stays"
    assert states[-1] == ((after, 3) if act is not challenge else (before, 4))


def at_random(ready, tmp_path, kills: int, seed: int) -> dict[str, int]:
    """Kill `kills` approvals at random moments of their usual length."""
    world = copy_of(ready, tmp_path / "whole")
    lasts, chance, found = child(world, approve)[1], random.Random(seed), {"2": 0, "3": 0}
    for n in range(kills):
        world = copy_of(ready, tmp_path / f"random{n}")
        child(world, approve, after_s=chance.uniform(0, lasts))
        registry, now = sound(world, "2", "3")
        found[now] += 1
        if now == "2":
            approve(world, registry)
        assert registry.audit() == [] and in_production(registry.entries(), NAME) == "3"
        shutil.rmtree(world.folder)
    return found


def test_killed_at_random_moments(ready, silent, tmp_path):
    assert sum(at_random(ready, tmp_path, 3, 0).values()) == 3


@pytest.mark.slow
def test_fifty_kills_at_random_moments(ready, silent, tmp_path):
    found = at_random(ready, tmp_path, 50, 1)
    assert found["2"] > 0 and found["3"] > 0, "both states must have been met, or the moments were badly chosen"
    print(f"50 kills: {found['2']} left the old state, {found['3']} the new one")
