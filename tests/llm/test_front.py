"""The front over real sockets: keys, bodies, errors in OpenAI's dialect, streams, disconnects, sixty-four clients."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import httpx
import openai
import pytest
from starlette.routing import Route

from esa_notebooks.llm import front
from esa_notebooks.llm.audit import check
from esa_notebooks.llm.front import FrontError, application, bound, server, serving
from tests.llm.endpoints import Endpoint
from tests.llm.gateway_world import KEY, KEY_ENV, audited, gateway_of, said

PATH = "/v1/chat/completions"
BODY = {"model": "small", "messages": said("Where is it?"), "max_tokens": 16}


class World:
    """A front over a scripted local endpoint and a scripted cloud, with a client that holds the key of a team."""

    def __init__(self, folder, local, cloud, **more):
        self.folder, self.local, self.cloud = folder, local, cloud
        self.gateway = gateway_of(folder, local, cloud, **more)
        self.key = self.gateway.keys.issue("robotics", date(9999, 12, 31))
        self.app = application(self.gateway)
        self.headers = {"Authorization": f"Bearer {self.key}", "X-Data-Class": "internal", "X-Purpose": "assistance"}

    def post(self, body=None, headers=None, **more):
        sent = {"content": body} if isinstance(body, bytes) else {"json": BODY if body is None else body}
        return self.client.post(PATH, headers=self.headers if headers is None else headers, **sent, **more)


@pytest.fixture
def world(tmp_path, monkeypatch, request):
    """The endpoints are given a second, or as many as the test says: beyond them, another one is asked."""
    monkeypatch.setenv(KEY_ENV, KEY)
    with Endpoint(lambda body: body["messages"][-1]["content"]) as local, Endpoint(lambda body: "far") as cloud:
        it = World(tmp_path, local, cloud, within_s=getattr(request, "param", 1.0))
        with serving(it.app) as url, httpx.Client(base_url=url, trust_env=False, timeout=20) as it.client:
            it.url = url
            yield it


def error(response):
    told = response.json()["error"]
    assert set(told) == {"message", "type", "param", "code"} and told["message"]
    return response.status_code, told["code"]


def test_no_route_but_health_answers_without_a_key(world):
    routes = [r for r in world.app.routes if isinstance(r, Route)]
    paths = {r.path: r.methods for r in routes}
    assert {"/health", PATH, "/v1/models", "/metrics", "/openapi.json"} <= set(paths)
    for path, methods in [
        *paths.items(),
        ("/docs", {"GET"}),
        ("/", {"GET"}),
        ("//health", {"GET"}),
        ("/health/", {"GET"}),
        ("/HEALTH", {"GET"}),
    ]:
        for method in {*methods, "OPTIONS", "POST", "DELETE", "HEAD"}:
            status = world.client.request(method, path).status_code
            assert status == 401 or path == "/health" and status in (200, 405), (method, path, status)
    for wrong in ("", "Bearer", "Bearer x", f"Basic {world.key}", "Bearer esa-00000000-x", f"Bearer {world.key}x"):
        assert world.client.get("/v1/models", headers={"Authorization": wrong}).status_code == 401
    assert world.client.get("/v1/models", headers={"Authorization": f"Bearer {world.key}"}).status_code == 200


def test_a_websocket_is_turned_away(world):
    told = []

    async def send(message):
        told.append(message)

    import asyncio

    asyncio.run(world.app({"type": "websocket", "path": "/health", "headers": []}, None, send))
    assert told == [{"type": "websocket.close", "code": 1008}]


def test_an_answer_carries_its_own_id(world):
    told = [world.post() for _ in range(2)]
    assert [t.json()["choices"][0]["message"]["content"] for t in told] == ["Where is it?"] * 2
    ids = [t.headers["x-request-id"] for t in told]
    assert ids == [t.json()["id"] for t in told] and ids[0] != ids[1]
    assert [h["X-Request-Id"] for h in world.local.headers] == ids
    assert [e["request"] for e in audited(world.folder) if e["event"] == "answered"] == ids


@pytest.mark.parametrize(
    "change, code",
    [
        ({"X-Data-Class": None}, (400, "no_header")),
        ({"X-Purpose": None}, (400, "no_header")),
        ({"X-Data-Class": ""}, (400, "no_header")),
        ({"X-Data-Class": "intern"}, (400, "unknown_class")),
        ({"X-Purpose": "x" * 3000}, (400, "unknown_purpose")),
        ({"Authorization": None}, (401, "no_key")),
    ],
)
def test_headers(world, change, code):
    headers = {k: v for k, v in (world.headers | change).items() if v is not None}
    assert error(world.post(headers=headers)) == code and world.local.seen == []


@pytest.mark.parametrize(
    "body, code",
    [
        (b"", (400, "not_json")),
        (b"{", (400, "not_json")),
        (b"[]", (400, "not_json")),
        (b'{"messages": "\xff"}', (400, "not_text")),
        (b'\xef\xbb\xbf{"model": "small"}', (400, "not_json")),
        (json.dumps(BODY).encode("utf-16"), (400, "not_text")),
        (json.dumps(BODY | {"temperature": float("nan")}).encode(), (400, "not_json")),
        (b"[" * 200_000, (400, "not_json")),
        (b'{"seed": ' + b"9" * 10_000 + b"}", (400, "not_json")),
        (json.dumps(BODY | {"messages": said("x\ud800")}).encode(), (400, "not_text")),
        ({"messages": said("x")}, (400, "unknown_field")),
        ({"model": ["small"], "messages": said("x")}, (400, "unknown_field")),
        ({"model": "small"}, (400, "unknown_field")),
        (BODY | {"messages": {}}, (400, "not_text")),
        (BODY | {"messages": [[]]}, (400, "not_text")),
        (BODY | {"messages": []}, (400, "empty")),
        (BODY | {"model": "smal"}, (404, "unknown_model")),
        (BODY | {"n": 2}, (400, "unknown_field")),
        (BODY | {"user": "x"}, (400, "unknown_field")),
        (BODY | {"max_completion_tokens": 17}, (400, "unknown_field")),
        (BODY | {"max_tokens": "16"}, (400, "parameter")),
        (BODY | {"max_tokens": 100_000}, (413, "too_long")),
        (BODY | {"temperature": 9}, (400, "parameter")),
        (BODY | {"messages": said("ESA RESTRICTED")}, (403, "marking")),
        (BODY | {"messages": said("<|im_start|>system")}, (400, "role_tags")),
        (BODY | {"messages": said("x" * 1_000_000)}, (413, "too_long")),
        (b" " * (1024 * 1024) + b"{}", (413, "too_long")),
    ],
)
def test_bodies(world, body, code):
    assert error(world.post(body)) == code and world.local.seen == world.cloud.seen == []
    (entry,) = audited(world.folder)
    assert (entry["event"], entry["code"], entry["team"]) == ("refused", code[1], "robotics")
    assert f'esa_llm_refused_total{{code="{code[1]}"}} 1.0' in world.gateway.measured().decode()


def test_near_misses_are_named(world):
    assert "Did you mean `small`?" in world.post(BODY | {"model": "smal"}).json()["error"]["message"]
    assert "Did you mean `temperature`?" in world.post(BODY | {"temprature": 1}).json()["error"]["message"]


def test_braces_pass_untouched(world):
    text = "{0} {user} %s {{}} ${HOME} \\u0041 𝛀"
    assert world.post(BODY | {"messages": said(text)}).json()["choices"][0]["message"]["content"] == text


def test_a_body_without_length_and_one_that_lies(world):
    def endless():
        for _ in range(40):
            yield b" " * (64 * 1024)

    assert error(world.client.post(PATH, headers=world.headers, content=endless())) == (413, "too_long")
    host, port = world.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        lines = [
            f"POST {PATH} HTTP/1.1",
            "Host: x",
            *(f"{k}: {v}" for k, v in world.headers.items()),
            "Content-Length: 99999999999",
        ]
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come(world, monkeypatch):
    monkeypatch.setattr(front, "_READ_S", 0.3)
    host, port = world.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        lines = [
            f"POST {PATH} HTTP/1.1",
            "Host: x",
            *(f"{k}: {v}" for k, v in world.headers.items()),
            "Content-Length: 10",
        ]
        raw.sendall("\r\n".join([*lines, "", "{"]).encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_an_unknown_path_and_method_with_a_key(world):
    assert error(world.client.get("/v1/embeddings", headers=world.headers)) == (404, "no_such_path")
    assert error(world.client.get(PATH, headers=world.headers)) == (405, "no_such_method")


def test_quota_says_when_to_come_back(world):
    key = world.gateway.keys.issue("outreach", date(9999, 12, 31))
    headers = {"Authorization": f"Bearer {key}", "X-Data-Class": "public", "X-Purpose": "assistance"}
    told = [world.post(headers=headers) for _ in range(6)]
    assert [t.status_code for t in told] == [200] * 5 + [429] and 1 <= int(told[-1].headers["retry-after"]) <= 61


def test_an_expired_and_a_revoked_key(world):
    old = world.gateway.keys.issue("robotics", date(2020, 1, 1), at=datetime(2019, 1, 1, tzinfo=UTC))
    assert error(world.post(headers=world.headers | {"Authorization": f"Bearer {old}"})) == (401, "expired_key")
    world.gateway.keys.revoke(world.key.split("-")[1])
    assert error(world.post()) == (401, "revoked_key") and world.key not in (world.folder / "audit.jsonl").name


@pytest.mark.parametrize("fault, status", [(400, 400), (401, 502), (404, 502), (422, 422)])
def test_a_4xx_of_the_endpoint(world, fault, status):
    world.local.fault = fault
    assert error(world.post()) == (status, "not_delivered") and world.cloud.seen == []


def test_a_mistake_of_our_own_is_told_without_its_words(world, monkeypatch):
    def broken(**_):
        raise KeyError("a secret in an exception")

    monkeypatch.setattr(world.gateway, "admit", broken)
    told = world.post()
    assert error(told) == (500, "internal") and "secret" not in told.text


# --- streams ---------------------------------------------------------------------------------------------------------


def events(response):
    return [line[6:] for line in response.iter_lines() if line.startswith("data: ")]


def test_a_stream(world):
    with world.client.stream("POST", PATH, headers=world.headers, json=BODY | {"stream": True}) as response:
        lines = events(response)
    parts = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]" and response.headers["content-type"].startswith("text/event-stream")
    assert "".join(c["delta"].get("content") or "" for p in parts for c in p["choices"]) == "Where is it?"
    assert {p["id"] for p in parts} == {response.headers["x-request-id"]} and parts[-1]["usage"][
        "completion_tokens"
    ] == 3


def test_a_stream_that_fails_before_the_first_byte_has_its_status(world):
    world.local.fault = 400
    assert error(world.post(BODY | {"stream": True})) == (400, "not_delivered")
    world.local.fault = 500
    told = world.post(BODY | {"stream": True})
    assert told.status_code == 200 and "far" in told.text


def test_a_stream_cut_later_ends_in_an_error_and_without_done(world):
    world.local.fault = "cut"
    with world.client.stream("POST", PATH, headers=world.headers, json=BODY | {"stream": True}) as response:
        lines = events(response)
    assert response.status_code == 200 and json.loads(lines[-1])["error"]["code"] == "cut" and "[DONE]" not in lines
    assert world.cloud.seen == [] and audited(world.folder)[-1]["event"] == "cut"


@pytest.mark.parametrize("when", ["before the first byte", "in the middle", "of a plain answer"])
def test_a_client_that_goes_away_stops_the_endpoint_and_pays(world, when):
    world.local.reply = lambda body: "word " * 4000
    world.local.pace_s = 0.02 if when == "in the middle" else 0
    world.local.fault = None if when == "in the middle" else "hang"
    with httpx.Client(base_url=world.url, trust_env=False, timeout=0.5) as impatient:
        if when == "in the middle":
            with impatient.stream("POST", PATH, headers=world.headers, json=BODY | {"stream": True}) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                impatient.post(PATH, headers=world.headers, json=BODY | {"stream": when != "of a plain answer"})
    assert world.local.wait(lambda: audited(world.folder)[-1]["event"] == "cancelled")
    assert when != "in the middle" or world.local.wait(lambda: world.local.aborted == 1)
    assert audited(world.folder)[-1]["prompt_tokens"] > 0 and world.cloud.seen == []


def test_openais_own_client_is_content(world):
    headers = {k: v for k, v in world.headers.items() if k != "Authorization"}
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key=world.key, default_headers=headers, max_retries=0) as client:
        assert [m.id for m in client.models.list()] == ["small", "far"]
        told = client.chat.completions.create(**BODY)
        assert told.choices[0].message.content == "Where is it?" and told.usage.completion_tokens == 3
        parts = list(client.chat.completions.create(**BODY, stream=True))
        assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == "Where is it?"
        with pytest.raises(openai.NotFoundError, match="Did you mean"):
            client.chat.completions.create(**(BODY | {"model": "smal"}))


def test_metrics(world):
    world.post()
    world.post(BODY | {"model": "smal"})
    page = world.client.get("/metrics", headers=world.headers).text
    for line in (
        'esa_llm_requests_total{data_class="internal",endpoint="local",outcome="answered",team="robotics"} 1.0',
        'esa_llm_refused_total{code="unknown_model"} 1.0',
        'esa_llm_request_seconds_count{endpoint="local"} 1.0',
        "esa_llm_in_flight 0.0",
        'esa_llm_quota_left_tokens{team="outreach"} 1000.0',
    ):
        assert line in page


# --- the server itself -----------------------------------------------------------------------------------------------


def test_it_listens_on_loopback_only_and_says_when_a_port_is_taken():
    taken = bound(0)
    assert taken.getsockname()[0] == "127.0.0.1"
    with pytest.raises(FrontError, match="cannot be used"):
        taken.listen()
        bound(taken.getsockname()[1])
    with pytest.raises(FrontError):
        bound(70_000)
    taken.close()


def test_an_end_waits_for_what_is_in_flight(tmp_path):
    with Endpoint(lambda body: "late", delay_s=1.0) as local:
        it = World(tmp_path, local, None)
        listener, running, told = bound(0), server(it.app), []
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        url = "http://{}:{}".format(*listener.getsockname())
        asking = threading.Thread(
            target=lambda: told.append(
                httpx.post(url + PATH, json=BODY, headers=it.headers, trust_env=False, timeout=10)
            )
        )
        assert local.wait(lambda: running.started)
        asking.start()
        assert local.wait(lambda: len(local.seen) == 1)
        running.should_exit = True
        time.sleep(0.2)
        with pytest.raises(httpx.HTTPError):
            httpx.get(url + "/health", trust_env=False, timeout=0.5)
        asking.join()
        thread.join()
        listener.close()
    assert told[0].json()["choices"][0]["message"]["content"] == "late"


@pytest.mark.parametrize("world", [60.0], indirect=True)
def test_sixty_four_clients_each_get_their_own_answers(world):
    """A few seconds; `benchmarks/llm/clients.py` does it for two minutes and watches the memory."""
    world.local.delay_s = 0.01

    def client(number):
        mine = []
        with httpx.Client(base_url=world.url, trust_env=False, timeout=60) as c:
            for i in range(4):
                word, stream = f"token-{number}-{i}", i % 2 == 1
                told = c.post(PATH, headers=world.headers, json=BODY | {"messages": said(word), "stream": stream})
                if stream:
                    parts = [json.loads(line) for line in events(told)[:-1]]
                    text = "".join(p["delta"].get("content") or "" for x in parts for p in x["choices"])
                else:
                    text = told.json()["choices"][0]["message"]["content"]
                mine.append((word, text, told.headers["x-request-id"]))
        return mine

    with ThreadPoolExecutor(64) as pool:
        told = [t for mine in pool.map(client, range(64)) for t in mine]
    assert [t for t in told if t[0] != t[1]] == [] and len({t[2] for t in told}) == len(told) == 256
    assert len(world.local.seen) == 256 and check(world.folder / "audit.jsonl") == []
    assert sum(e["event"] == "answered" for e in audited(world.folder)) == 256
