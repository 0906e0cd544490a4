"""A campaign under bad conditions: what fails is said, what was answered is kept, nothing is asked twice."""

import os
import signal
import threading
import time

import pandas as pd
import pytest
from langchain_core.runnables import RunnableLambda
from langsmith import utils

from esa_notebooks.llm import door
from esa_notebooks.llm.evaluation import campaign
from esa_notebooks.llm.evaluation.cache import Cache
from esa_notebooks.llm.evaluation.campaign import CampaignError, complete, counted, evaluate, provenance, summary
from esa_notebooks.llm.evaluation.figures import checked
from esa_notebooks.llm.evaluation.systems import System, language_model
from esa_notebooks.llm.policy import Refused
from esa_notebooks.llm.tasks.files import Item, Task
from tests.llm.endpoints import Endpoint
from tests.llm.evaluation.campaign_world import ENGINE, go, honest, made, number, program, ready, system, told
from tests.llm.gateway_world import ASKED, gateway_of


def quiet(line):
    pass


@pytest.fixture
def cache(tmp_path):
    with Cache(tmp_path / "cache.sqlite") as made_here:
        yield made_here


@pytest.fixture(autouse=True)
def no_bar(monkeypatch):
    monkeypatch.setenv("ESA_RUN_ID", "test")


def test_every_item_has_one_row_in_the_order_of_the_task(cache):
    says = {0: "even", 1: "even", 2: "I cannot answer that.", 3: "seven"}
    with Endpoint(lambda body: says.get(number(body), honest(body))) as it:
        frame = evaluate(made(12), system(it.url), cache, concurrency=5, say=quiet)
    assert list(frame["item"]) == [item.id for item in made(12).items]
    assert list(frame["scored"][:4]) == ["answered", "answered", "refused", "invalid"]
    assert (
        list(frame["correct"][:2]) == [1.0, 0.0]
        and frame["correct"][2:4].isna().all()
        and (frame["correct"][4:] == 1).all()
    )
    assert (frame["completion_tokens"][4:] == 1).all() and (frame["total_s"] > 0).all() and complete(frame)
    assert checked(frame)["value"].sum() == 9  # the figures take it as it is


def test_what_failed_is_no_wrong_answer_and_only_that_is_asked_again(cache):
    with Endpoint(honest, fault=lambda n: 500 if n % 4 == 1 else 429 if n % 4 == 3 else None) as it:
        first = evaluate(made(20), system(it.url), cache, concurrency=1, say=quiet)
        assert len(it.seen) == 20 and len(cache) == 10
        failed = first[first["status"] == "failed"]
        assert len(failed) == 10 and failed["correct"].isna().all() and (failed["error"] != "").all()
        assert sorted(set(failed["reason"])) == ["status 429", "status 500"]
        assert not complete(first) and "Incomplete" in summary(first) and not provenance(first)["complete"]
        it.fault = None
        second = evaluate(made(20), system(it.url), cache, concurrency=4, say=quiet)
        assert sorted(map(number, it.seen[20:])) == sorted(int(name[1:]) for name in failed["item"])
    assert complete(second) and (second["correct"] == 1).all() and second["cached"].sum() == 10


def test_a_second_pass_is_asked_for_and_shown(cache):
    with Endpoint(honest, fault=lambda n: 503 if n < 6 else None) as it:
        frame = evaluate(made(10), system(it.url), cache, concurrency=2, passes=2, say=quiet)
        assert len(it.seen) == 16 and complete(frame)
    assert sorted(frame["asked"]) == [1] * 4 + [2] * 6


def test_killed_at_any_moment_only_what_was_under_way_is_asked_again(tmp_path):
    n, at_once = 120, 6
    with Endpoint(honest, delay_s=0.02) as it:
        first, second = (program(it.url, tmp_path / "cache.sqlite", n, at_once) for _ in range(2))
        ready(first, second)
        go(first)
        assert it.wait(lambda: len(it.seen) > n // 3, 30)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        time.sleep(0.1)
        before = len(it.seen)
        assert before < n  # it was in the middle
        began = time.monotonic()
        go(second)
        result = told(second)
        assert time.monotonic() - began < 20  # the claims of the dead hold nobody up
        asked_again = {number(b) for b in it.seen[:before]} & {number(b) for b in it.seen[before:]}
    assert result["answered"] == n and result["right"] == n and result["cached"] >= before - at_once
    assert len(asked_again) <= at_once and {number(b) for b in it.seen} == set(range(n))


def test_two_processes_on_one_cache_ask_each_question_once(tmp_path):
    n = 80
    with Endpoint(honest, delay_s=0.03) as it:
        both = [program(it.url, tmp_path / "cache.sqlite", n, 4) for _ in range(2)]
        ready(*both)
        for one in both:
            go(one)
        results = [told(one) for one in both]
        assert sorted(map(number, it.seen)) == list(range(n))
    assert [r["right"] for r in results] == [n, n] and sum(r["cached"] for r in results) == n


def test_a_thousand_answers_come_from_the_cache_in_two_seconds_and_without_times(cache):
    with Endpoint(honest) as it:
        task, tested = made(1000), system(it.url)
        for question in campaign._questions(task, tested, task.items, "plain", True):
            cache.put(
                question.key, {"text": question.item.gold, "total_s": 9.0, "first_token_s": 1.0}, "2026-11-25T12:00:00Z"
            )
        began = time.process_time()
        frame = evaluate(task, tested, cache, say=quiet)
        assert time.process_time() - began < 2 and it.seen == []  # processor time: no others' work
    assert (
        frame["cached"].all()
        and frame[["total_s", "first_token_s", "begun_s"]].isna().all(axis=None)
        and (frame["correct"] == 1).all()
    )


def test_refused_content_is_an_outcome_and_an_expired_key_is_none(cache):
    refusals = {
        0: Refused("role_tags", "<|im_start|> in messages[1]"),
        1: Refused("quota", "used up", retry_after_s=60),
        2: Refused("expired_key", "The key ended."),
        3: Refused("too_long", "4,000 tokens"),
    }

    def ask(given):
        n = number({"messages": given})
        if n in refusals:
            try:
                raise refusals[n]
            except Refused as refused:
                raise ConnectionError("a library in between") from refused
        return honest({"messages": given})

    frame = evaluate(
        made(6), System("tested", "llm", RunnableLambda(ask), {"v": 1}), cache, concurrency=2, passes=2, say=quiet
    )
    assert list(frame["reason"][:4]) == ["refused by policy", "quota", "expired_key", "too long"]
    assert list(frame["asked"][:4]) == [1, 2, 2, 1] and list(frame["scored"][:4]) == [
        "refused",
        "failed",
        "failed",
        "failed",
    ]
    assert counted(frame) == {
        "answered": 2,
        "failed: expired_key": 1,
        "failed: quota": 1,
        "failed: too long": 1,
        "refused by policy": 1,
    }
    assert not complete(frame) and len(cache) == 2


def test_the_door_is_a_system_and_its_refusals_and_faults_are_told(cache, tmp_path):
    with Endpoint(honest) as it:
        door_ = door.chat(gateway_of(tmp_path, it), **ASKED | {"purpose": "evaluation"})
        tested = language_model("door", door_, ENGINE)
        task = made(6, text="Is {} even?")
        marked = Item(**vars(task.items[0]) | {"input": {"question": "Is 0 <|im_start|>system even?"}})
        task = Task(head=task.head, items=(marked, *task.items[1:]), digest=task.digest)
        frame = evaluate(task, tested, cache, concurrency=3, say=quiet)
        assert (
            len(it.seen) == 5 and {b["seed"] for b in it.seen} == {0} and {b["temperature"] for b in it.seen} == {0.0}
        )
        it.fault = 500
        broken = evaluate(made(2, text="Once more: Is {} even?"), tested, cache, say=quiet)
        it.fault = None
    assert counted(frame) == {"answered": 5, "refused by policy": 1} and set(frame["endpoint"][1:]) == {"local"}
    assert (
        (frame["total_s"][1:] > 0).all()
        and (frame["attempts"][1:] == 1).all()
        and (frame["prompt_tokens"][1:] > 0).all()
    )
    assert counted(broken) == {"failed: status 500": 2} and not complete(broken)


def test_a_prompt_that_the_engine_has_no_room_for_is_too_long(cache):
    words = "This model's maximum context length is 2048 tokens. However, you requested 4096 tokens."

    class Full(Exception):
        status_code = 400

    def ask(given):
        if number({"messages": given}) < 3:
            raise Full(words)
        return "even"

    frame = evaluate(made(6), System("tested", "llm", RunnableLambda(ask), {"v": 1}), cache, passes=2, say=quiet)
    assert counted(frame) == {"answered": 3, "failed: too long": 3} and complete(frame) and frame["asked"].max() == 1


def test_braces_role_tags_and_surrogates_reach_the_system_as_they_are(cache):
    seen = []
    task = made(3, text="Is {} {{0}} {{user}} {{{{x}}}} %s %(a)s <|im_start|> \ud800 \u202e even?")
    tested = System("tested", "llm", RunnableLambda(lambda given: seen.append(given) or "even"), {"v": 1})
    evaluate(task, tested, cache, concurrency=1, say=quiet)
    assert all(item.input["question"] in given[-1]["content"] for item, given in zip(task.items, seen, strict=True))
    again = evaluate(task, tested, cache, say=quiet)
    assert again["cached"].all() and len(seen) == 3


def test_the_same_prompt_twice_is_asked_once(cache):
    with Endpoint(lambda body: "even", delay_s=0.05) as it:
        task = made(8, text="Is 4 even?")
        frame = evaluate(task, system(it.url), cache, concurrency=8, say=quiet)
        assert len(it.seen) == 1
    assert (frame["text"] == "even").all() and frame["cached"].sum() == 7


def test_an_answer_that_cannot_be_kept_ends_the_campaign(cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Cache, "put", full)
    with Endpoint(honest) as it, pytest.raises(OSError, match="No space"):
        evaluate(made(5), system(it.url), cache, say=quiet)
    assert cache._db.execute("SELECT count(*) FROM claims").fetchone() == (0,)


def test_as_many_requests_are_under_way_as_were_asked_for(cache):
    now, most, lock = 0, 0, threading.Lock()

    def reply(body):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return honest(body)

    with Endpoint(reply) as it:
        evaluate(made(60), system(it.url), cache, concurrency=12, say=quiet)
    assert most == 12


def test_a_baseline_takes_the_item_and_is_not_kept(cache):
    asked = []
    tested = System("rule", "baseline", RunnableLambda(lambda item: asked.append(item.id) or "even"), {"rule": 1})
    lines = []
    for _ in range(2):
        frame = evaluate(made(4), tested, cache, say=lines.append)
    assert (
        len(asked) == 8
        and len(cache) == 0
        and not frame["cached"].any()
        and frame["correct"].sum() == 2
        and lines == []
    )


def test_what_a_campaign_rests_on_is_the_same_each_time_and_changes_with_its_parts(cache, tmp_path):
    with Endpoint(honest) as it:
        first, second = (evaluate(made(6), system(it.url), cache, say=quiet) for _ in range(2))
        other = evaluate(made(6, text="Say so: Is {} even?"), system(it.url), None, say=quiet)
        warm = evaluate(made(6), system(it.url, temperature=0.5), None, say=quiet)
    assert provenance(first) == provenance(second) and provenance(first)["system"]["identity"]["decoding"]["seed"] == 0
    assert provenance(other)["asked_sha256"] != provenance(first)["asked_sha256"] == provenance(warm)["asked_sha256"]
    assert provenance(warm)["system"]["digest"] != provenance(first)["system"]["digest"]
    first.to_parquet(tmp_path / "frame.parquet")
    assert provenance(pd.read_parquet(tmp_path / "frame.parquet")) == provenance(first)
    with pytest.raises(CampaignError, match="where it comes from"):
        provenance(pd.DataFrame())


def test_only_the_items_that_are_given_are_asked(cache):
    with Endpoint(honest) as it:
        task = made(9)
        frame = evaluate(task, system(it.url), cache, items=task.items[2:5], say=quiet)
        assert list(frame["item"]) == ["n00002", "n00003", "n00004"] and len(it.seen) == 3
        with pytest.raises(CampaignError, match="n00002' is there twice"):
            evaluate(task, system(it.url), cache, items=[task.items[2]] * 2, say=quiet)
        with pytest.raises(CampaignError, match="no item"):
            evaluate(task, system(it.url), cache, items=[], say=quiet)
        with pytest.raises(CampaignError, match="got 0 and 1"):
            evaluate(task, system(it.url), cache, concurrency=0, say=quiet)


def test_no_prompt_goes_to_a_tracing_service(cache, monkeypatch):
    with Endpoint(honest) as it, Endpoint(honest) as tracer:
        monkeypatch.setenv("LANGSMITH_TRACING", "true")
        monkeypatch.setenv("LANGSMITH_API_KEY", "none")
        monkeypatch.setenv("LANGSMITH_ENDPOINT", tracer.url)
        utils.get_env_var.cache_clear()
        evaluate(made(3), system(it.url), cache, say=quiet)
        assert len(it.seen) == 3 and not tracer.wait(lambda: tracer.seen, 0.5)
    utils.get_env_var.cache_clear()
