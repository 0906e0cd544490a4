"""One exchange with a scripted endpoint: every way to misbehave has its fault, in time."""

import asyncio
import json
import os
import socket
import threading
import time
from contextlib import aclosing

import pytest

from esa_notebooks.llm import wire
from esa_notebooks.llm.failover import Fault
from esa_notebooks.llm.wire import checked, events, exchange, run
from tests.llm.endpoints import FAULTS, STATUSES, Endpoint

OUTCOME = {s: str(s) for s in STATUSES} | {
    "refused": "connection",
    "hang": "timeout",
    "slow headers": "timeout",
    "cut": "cut",
    "cut early": "cut",
    "wrong json": "no answer",
    "wrong shape": "no answer",
    "wrong type": "no answer",
    "empty": "no answer",
    "redirect": "no answer",
}


async def parts(url, stream=False, within_s=3.0, key=None):
    body = {"model": "m", "messages": [{"role": "user", "content": "a b"}]}
    body |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with aclosing(exchange(url, body, key=key, headers={"X-Request-Id": "req-7"}, within_s=within_s)) as it:
        return [part async for part in it]


def test_every_fault_has_its_outcome():
    assert set(OUTCOME) == set(FAULTS) - {None}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [f for f in FAULTS if f])
def test_misbehaviour_is_named_and_in_time(fault, stream):
    with Endpoint(lambda body: "one two three four", fault=fault, elsewhere="http://127.0.0.1:9/v1") as it:
        began = time.monotonic()
        with pytest.raises(Fault) as caught:
            run(parts(it.url, stream, within_s=0.4 if OUTCOME[fault] == "timeout" else 5))
    assert caught.value.outcome == OUTCOME[fault] and time.monotonic() - began < 3


def test_a_stream_may_take_longer_than_one_wait_as_long_as_something_comes():
    with Endpoint(lambda body: "x" * 80, pace_s=0.1) as it:
        assert len(run(parts(it.url, True, within_s=0.5))) > 10


def test_a_plain_answer_that_drips_is_given_up():
    """Each byte comes within the limit, all of them do not."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        client, _ = listener.accept()
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            for _ in range(100):
                client.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    threading.Thread(target=drip, daemon=True).start()
    with pytest.raises(Fault, match="no answer in time"):
        run(parts(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", within_s=0.3))
    listener.close()


def test_redirects_proxies_and_netrc_are_not_followed(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password secret-of-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Endpoint() as elsewhere, Endpoint(fault="redirect", elsewhere=elsewhere.url) as it, Endpoint() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        with pytest.raises(Fault, match="not followed"):
            run(parts(it.url))
    assert (len(it.seen), elsewhere.seen, proxy.seen) == (1, [], [])
    assert "Authorization" not in it.headers[0]


def test_cookies_are_not_kept():
    assert wire._ours().client.cookies.jar._policy.allowed_domains() == ()
    with Endpoint() as it:
        for _ in range(2):
            run(parts(it.url))
    assert all("Cookie" not in h for h in it.headers)


def test_a_key_goes_where_it_belongs():
    with Endpoint() as one, Endpoint() as other:
        run(parts(one.url, key="of-one"))
        run(parts(other.url))
    assert one.headers[0]["Authorization"] == "Bearer of-one" and "Authorization" not in other.headers[0]


@pytest.mark.parametrize(
    "text", ["one\u2028two", "a\x85b", "\x0b\x0c\x1c", "data: [DONE]", "𝛀 \U0001f680", '\\n " {} %s']
)
def test_text_survives_a_stream(text):
    with Endpoint(lambda body: text) as it:
        told = run(parts(it.url, True))
    assert "".join(c["delta"].get("content") or "" for p in told for c in p["choices"]) == text


def test_events_cut_anywhere_are_the_same():
    whole = 'data: {"a":"é\u2028"}\r\n\r\ndata:{"b":1}\n\n: note\nevent: x\ndata: [DONE]\n\n'.encode()

    async def of(size):
        async def chunks():
            for i in range(0, len(whole), size):
                yield whole[i : i + size]

        return [e async for e in events(chunks())]

    assert {tuple(run(of(size))) for size in range(1, len(whole) + 1)} == {('{"a":"é\u2028"}', '{"b":1}', "[DONE]")}


@pytest.mark.parametrize("large", ["line", "body"])
def test_an_answer_without_end_is_given_up(large, monkeypatch):
    monkeypatch.setattr(wire, "LARGEST", 50_000)
    with Endpoint(lambda body: {"message": {"content": "x"}, "logprobs": "y" * 100_000}) as it:
        with pytest.raises(Fault, match="50000 bytes"):
            if large == "body":
                run(parts(it.url))
            else:

                async def chunks():
                    for _ in range(100):
                        yield b"data: " + b"x" * 1000

                run(_all(events(chunks())))


async def _all(it):
    return [x async for x in it]


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "3",
        '"x"',
        "{}",
        '{"choices": []}',
        '{"choices": {}}',
        '{"choices": [null]}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": {"content": ["part"]}}]}',
        '{"choices": [{"message": {"content": "x"}}], "usage": [1]}',
        '{"error": "engine dead", "choices": [{"message": {"content": "x"}}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_answer(text):
    with pytest.raises(Fault):
        checked(text)


def test_a_forked_process_has_a_loop_of_its_own():
    with Endpoint() as it:
        run(parts(it.url))
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.write(write, json.dumps(run(parts(it.url))[0]["choices"][0]["message"]["content"]).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 100) == b'"ok"'


def test_many_loops_one_after_the_other():
    with Endpoint() as it:
        for _ in range(3):
            assert asyncio.run(_awaited(it.url))[0]["choices"]


async def _awaited(url):
    return await wire.awaited(parts(url))
