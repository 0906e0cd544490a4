"""Quotas hold to the token, however many ask at once, and whoever dies meanwhile."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from esa_notebooks.llm.policy import Quotas, Refused, Team
from esa_notebooks.llm.quota import HOLD_S, Quota, QuotaError, _used

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


def policy_of(tokens=1000, requests=1000, teams=("a",)):
    known = {t: Team(t, (), (), Quotas(tokens, requests)) for t in teams}

    def team(name):
        if name not in known:
            raise Refused("unknown_team", f"no team {name}")
        return known[name]

    return SimpleNamespace(team=team)


def quota_of(tmp_path, **limits):
    return Quota(tmp_path / "usage.sqlite", policy_of(**limits))


def refused(quota, tokens, at=NOON, team="a"):
    with pytest.raises(Refused) as e:
        quota.reserve(team, tokens, at)
    return e.value


def test_to_the_token(tmp_path):
    quota = quota_of(tmp_path)
    quota.settle(quota.reserve("a", 600, NOON), 600)
    assert refused(quota, 401).code == "quota"
    quota.settle(quota.reserve("a", 400, NOON), 400)
    assert quota.left("a", NOON)[0] == 0 and quota.reserve("a", 0, NOON)


def test_what_was_reserved_and_not_used_is_free_again(tmp_path):
    quota = quota_of(tmp_path)
    number = quota.reserve("a", 1000, NOON)
    e = refused(quota, 1)
    assert (e.status, e.retry_after_s) == (429, 1.0) and "hold 1000" in str(e)
    quota.settle(number, 10)
    assert quota.left("a", NOON)[0] == 990


def test_settling_twice_counts_once_and_for_nothing_counts_nothing(tmp_path):
    quota = quota_of(tmp_path)
    number = quota.reserve("a", 100, NOON)
    quota.settle(number, 60)
    quota.settle(number, 60)
    assert quota.left("a", NOON)[0] == 940
    with pytest.raises(QuotaError, match="number 99"):
        quota.settle(99, 1)


def test_a_request_may_cost_more_than_it_reserved_and_then_it_counts(tmp_path):
    quota = quota_of(tmp_path)
    quota.settle(quota.reserve("a", 900, NOON), 1200)
    assert quota.left("a", NOON)[0] == 0 and refused(quota, 1).retry_after_s == 12 * 3600


def test_the_minute_slides(tmp_path):
    quota = quota_of(tmp_path, requests=3)
    for second in (0, 20, 40):
        quota.reserve("a", 1, NOON + timedelta(seconds=second))
    e = refused(quota, 1, NOON + timedelta(seconds=59))
    assert e.retry_after_s == pytest.approx(1) and "3 times" in str(e)
    assert quota.reserve("a", 1, NOON + timedelta(seconds=60)) and refused(
        quota, 1, NOON + timedelta(seconds=61)
    ).retry_after_s == pytest.approx(19)


def test_coming_back_when_told_is_enough(tmp_path):
    quota = quota_of(tmp_path, tokens=10, requests=2)
    quota.settle(quota.reserve("a", 10, NOON), 10)
    assert quota.reserve("a", 10, NOON + timedelta(seconds=refused(quota, 10).retry_after_s))
    busy = quota_of(tmp_path, tokens=10**6, requests=2)
    later = NOON + timedelta(days=3)
    busy.reserve("a", 1, later), busy.reserve("a", 1, later + timedelta(seconds=0.25))
    wait = refused(busy, 1, later + timedelta(seconds=1)).retry_after_s
    assert busy.reserve("a", 1, later + timedelta(seconds=1 + wait))


def test_a_day_ends_at_midnight_in_utc(tmp_path):
    quota = quota_of(tmp_path)
    east = timezone(timedelta(hours=9))
    quota.settle(quota.reserve("a", 1000, datetime(2027, 3, 2, 8, 59, tzinfo=east)), 1000)  # still the first of March
    assert refused(quota, 1, datetime(2027, 3, 1, 23, 59, 30, tzinfo=UTC)).retry_after_s == pytest.approx(30)
    assert quota.reserve("a", 1000, datetime(2027, 3, 2, tzinfo=UTC))
    with pytest.raises(QuotaError, match="no zone"):
        quota.reserve("a", 1, datetime(2027, 3, 2))


def test_what_settles_after_midnight_counts_for_its_own_day(tmp_path):
    quota = quota_of(tmp_path)
    number = quota.reserve("a", 500, datetime(2027, 3, 1, 23, 59, 59, tzinfo=UTC))
    quota.settle(number, 300)
    assert quota.left("a", NOON)[0] == 700 and quota.left("a", NOON + timedelta(days=1))[0] == 1000


def test_a_dead_process_holds_its_tokens_for_an_hour_only(tmp_path):
    quota = quota_of(tmp_path)
    number = quota.reserve("a", 1000, NOON)
    assert refused(quota, 1, NOON + timedelta(seconds=HOLD_S - 1))
    assert quota.reserve("a", 400, NOON + timedelta(seconds=HOLD_S + 1))
    quota.settle(number, 700)  # it was not dead after all: what it used counts, though the day is then over its limit
    assert quota.left("a", NOON + timedelta(seconds=HOLD_S + 2))[0] == 0


def test_too_much_for_any_day_is_too_large_and_not_too_soon(tmp_path):
    e = refused(quota_of(tmp_path), 1001)
    assert (e.status, e.retry_after_s) == (413, None)


def test_teams_do_not_pay_for_one_another(tmp_path):
    quota = quota_of(tmp_path, requests=1, teams=("a", "b"))
    quota.reserve("a", 1000, NOON)
    assert quota.reserve("b", 1000, NOON)
    assert refused(quota, 1, team="c").code == "unknown_team"


@pytest.mark.parametrize("tokens", [-1, 1.5, True, "7", None, float("nan")])
def test_tokens_are_whole_numbers(tmp_path, tokens):
    quota = quota_of(tmp_path)
    with pytest.raises(QuotaError):
        quota.reserve("a", tokens, NOON)
    with pytest.raises(QuotaError):
        quota.settle(quota.reserve("a", 1, NOON), tokens)


def test_what_has_settled_costs_later_requests_nothing(tmp_path):
    """Neither time nor memory: SQLite takes as many steps after 5,000 requests in this hour as after none."""
    quota, steps = quota_of(tmp_path, tokens=10**9, requests=10**6), []
    for _ in range(2):
        with quota._changing() as db:
            db.set_progress_handler(lambda: steps.append(1), 1)
            before = len(steps)
            used = _used(db, "a", NOON.timestamp(), "2027-03-01")
            taken = len(steps) - before
            db.set_progress_handler(None, 0)
            rows = [("a", NOON.timestamp() - 1 - n % 3000, "2027-03-01", 10, 5) for n in range(5000)]
            db.executemany("insert into requests (team, at, day, reserved, used) values (?, ?, ?, ?, ?)", rows)
        assert used == (0, 0) and 0 < taken < 100


def test_usage_by_team_and_day(tmp_path):
    quota = quota_of(tmp_path, teams=("a", "b"))
    for day, team, tokens in ((0, "a", 5), (0, "a", 7), (0, "b", 1), (40, "a", 3)):
        at = NOON + timedelta(days=day)
        quota.settle(quota.reserve(team, 10, at), tokens)
    latest = quota.usage(7, NOON + timedelta(days=40))
    assert latest.values.tolist() == [["a", "2027-04-10", 1, 3]]


def test_sixty_four_threads_cannot_exceed_it_together(tmp_path):
    quota = quota_of(tmp_path, tokens=1000, requests=10_000)

    def ask(_):
        try:
            return quota.reserve("a", 30, NOON)
        except Refused:
            return None

    with ThreadPoolExecutor(64) as threads:
        got = [n for n in threads.map(ask, range(128)) if n]
        assert len(got) == 1000 // 30 == len(set(got))
        list(threads.map(lambda n: quota.settle(n, 30), got))
    assert quota.left("a", NOON)[0] == 1000 - 33 * 30


ASK = """
import sys
sys.path.insert(0, {tests!r})
from test_quota import NOON, Quota, Refused, policy_of
quota, got = Quota({path!r}, policy_of(tokens=1000, requests=50)), 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    try:
        number = quota.reserve("a", 7, NOON)
    except Refused:
        continue
    got += 1
    if got % 3:
        quota.settle(number, 7)
print(got, flush=True)
"""


def test_four_processes_cannot_exceed_it_together(tmp_path):
    """Two limits at once: 50 requests a minute bind before 1,000 tokens do (142 requests of 7)."""
    script = ASK.format(tests=str(Path(__file__).parent), path=str(tmp_path / "usage.sqlite"))
    ran = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for p in ran:
        assert p.stdout.readline() == "ready\n"
    for p in ran:  # all begin when all have loaded
        p.stdin.write("\n")
        p.stdin.flush()
    got = [int(p.communicate(timeout=60)[0]) for p in ran]
    assert sum(got) == 50 and all(p.returncode == 0 for p in ran)
    quota = Quota(tmp_path / "usage.sqlite", policy_of(tokens=1000, requests=50))
    assert quota.left("a", NOON) == (1000 - 50 * 7, 0)


def test_killed_in_the_middle_loses_no_count_and_blocks_nobody(tmp_path):
    """kill -9 while it holds the lock and an open transaction: the lock is free again, the change undone."""
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_quota import NOON, Quota, policy_of
quota = Quota({str(tmp_path / "usage.sqlite")!r}, policy_of())
quota.settle(quota.reserve("a", 100, NOON), 100)
with quota._changing() as db:
    db.execute("update days set tokens = 900")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == -9
    assert quota_of(tmp_path).left("a", NOON)[0] == 900
