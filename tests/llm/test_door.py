"""The door: LangChain's model over the gateway, plain, in threads, in loops and as a stream; and no other way out."""

import ast
import asyncio
from datetime import date
from pathlib import Path

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langsmith.utils import get_env_var
from pydantic import BaseModel

from esa_notebooks.llm.course import NotDelivered
from esa_notebooks.llm.door import chat
from esa_notebooks.llm.policy import Refused
from tests.llm.endpoints import Endpoint
from tests.llm.gateway_world import KEY, KEY_ENV, audited, gateway_of

PACKAGE = Path(__file__).resolve().parents[2] / "esa_notebooks"
ASKED = {"team": "robotics", "data_class": "internal", "purpose": "assistance", "model": "small", "max_tokens": 32}


def last(body):
    return body["messages"][-1]["content"]


@pytest.fixture(autouse=True)
def _key_of_the_cloud(monkeypatch):
    monkeypatch.setenv(KEY_ENV, KEY)


@pytest.fixture
def local():
    with Endpoint(last) as it:
        yield it


def made(source: str) -> set[str]:
    """The names of client classes that a module calls or inherits from."""
    clients = {
        "ChatOpenAI",
        "AzureChatOpenAI",
        "OpenAI",
        "AsyncOpenAI",
        "init_chat_model",
        "BaseChatOpenAI",
        "OpenAIEmbeddings",
    }
    found = set()
    for node in ast.walk(ast.parse(source)):
        used = [node.func] if isinstance(node, ast.Call) else node.bases if isinstance(node, ast.ClassDef) else []
        found |= {n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", "") for n in used} & clients
    return found


def test_no_other_module_makes_a_client():
    found = {p.relative_to(PACKAGE).as_posix(): made(p.read_text()) for p in PACKAGE.rglob("*.py")}
    assert {name: what for name, what in found.items() if what} == {"llm/door.py": {"ChatOpenAI"}}


def test_the_search_for_clients_finds_them():
    assert made("import openai\nopenai.OpenAI()") == {"OpenAI"} and made("class X(ChatOpenAI): pass") == {"ChatOpenAI"}


def test_only_the_wire_of_the_llm_package_speaks_http():
    """The door has its client over the inside transport; the service looks after its own engine."""
    speaking = {p.name for p in (PACKAGE / "llm").rglob("*.py") if "AsyncClient(" in p.read_text()}
    assert speaking == {"wire.py", "door.py"}


def test_an_answer_has_its_metadata(tmp_path, local):
    answer = chat(gateway_of(tmp_path, local), **ASKED).invoke(
        [SystemMessage("be brief"), HumanMessage("{0} {user} %s")]
    )
    assert isinstance(answer, AIMessage) and answer.content == "{0} {user} %s"
    assert answer.usage_metadata["input_tokens"] == 5 and answer.usage_metadata["output_tokens"] == 3
    esa = answer.response_metadata["esa"]
    assert set(esa) == {"endpoint", "attempts", "total_s", "first_token_s", "finish"}
    assert (esa["endpoint"], esa["attempts"], esa["first_token_s"], esa["finish"]) == ("local", 1, None, "stop")
    assert local.seen[0] == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "{0} {user} %s"}],
        "max_tokens": 32, "model": "near-small", "temperature": 0.0, "seed": 0, "stream": False,
    }  # fmt: skip


def test_the_time_to_the_first_token_is_measured_on_request(tmp_path, local):
    local.pace_s = 0.02
    answer = chat(gateway_of(tmp_path, local), **ASKED, first_token=True).invoke("one two three four five six")
    esa = answer.response_metadata["esa"]
    assert answer.content == "one two three four five six" and 0 < esa["first_token_s"] < esa["total_s"]
    assert answer.usage_metadata["output_tokens"] == 6


def test_batches_in_and_out_of_loops_again_and_again(tmp_path, local):
    model, questions = chat(gateway_of(tmp_path, local), **ASKED), [f"token-{i}" for i in range(20)]

    async def in_a_loop():
        plain = model.batch(questions, config={"max_concurrency": 8})  # what a notebook does, in Jupyter's loop
        return plain, await model.abatch(questions, config={"max_concurrency": 8})

    for _ in range(2):
        assert [a.content for a in model.batch(questions, config={"max_concurrency": 8})] == questions
        for answers in asyncio.run(in_a_loop()):
            assert [a.content for a in answers] == questions


def test_streams_plain_and_in_a_loop(tmp_path, local):
    model = chat(gateway_of(tmp_path, local), **ASKED)
    text = "one two three four \u2028 five"

    async def in_a_loop():
        return [c async for c in model.astream(text)]

    for chunks in (list(model.stream(text)), asyncio.run(in_a_loop())):
        whole = sum(chunks[1:], chunks[0])
        assert whole.content == text and len(chunks) > 3 and whole.usage_metadata["output_tokens"] == len(text.split())
        assert whole.response_metadata["esa"]["endpoint"] == "local"


def test_a_stream_left_early_is_closed(tmp_path):
    with Endpoint(lambda body: "word " * 2000, pace_s=0.01) as local:
        for _ in chat(gateway_of(tmp_path, local), **ASKED).stream("x"):
            break
        assert local.wait(lambda: local.aborted == 1)
        assert local.wait(lambda: audited(tmp_path)[-1]["event"] == "cancelled")


def test_a_cut_stream_raises_what_it_is(tmp_path):
    with Endpoint(lambda body: "one two three four five six", fault="cut") as local:
        with pytest.raises(NotDelivered, match="not the whole answer"):
            list(chat(gateway_of(tmp_path, local), **ASKED).stream("x"))


@pytest.mark.parametrize("way", ["invoke", "batch", "stream", "ainvoke", "astream"])
def test_a_refusal_is_raised_as_such_everywhere(tmp_path, local, way):
    model = chat(gateway_of(tmp_path, local), **ASKED)

    async def streamed():
        return [c async for c in model.astream("ESA RESTRICTED")]

    ways = {
        "invoke": lambda: model.invoke("ESA RESTRICTED"),
        "batch": lambda: model.batch(["ESA RESTRICTED"]),
        "stream": lambda: list(model.stream("ESA RESTRICTED")),
        "ainvoke": lambda: asyncio.run(model.ainvoke("ESA RESTRICTED")),
        "astream": lambda: asyncio.run(streamed()),
    }
    with pytest.raises(Refused) as caught:
        ways[way]()
    assert caught.value.code == "marking" and local.seen == []


@pytest.mark.parametrize(
    "fault, status", [(400, 400), (500, 502), ("hang", 504), ("wrong json", 502), ("refused", 503)]
)
def test_faults_are_raised_as_such(tmp_path, fault, status):
    with Endpoint(fault=fault) as local, Endpoint() as cloud:
        model = chat(gateway_of(tmp_path, local, cloud, within_s=0.4), **(ASKED | {"data_class": "restricted"}))
        with pytest.raises(NotDelivered) as caught:
            model.invoke("x")
    assert caught.value.status == status and cloud.seen == [] and len(local.seen) <= 1


def test_some_of_a_batch_may_fail(tmp_path, local):
    model = chat(gateway_of(tmp_path, local), **ASKED)
    told = model.batch(["fine", "ESA RESTRICTED", "also fine"], return_exceptions=True)
    assert [getattr(t, "content", type(t).__name__) for t in told] == ["fine", "Refused", "also fine"]


def test_bound_to_another_address_it_goes_nowhere_else(tmp_path, local):
    with Endpoint() as elsewhere:
        model = chat(gateway_of(tmp_path, local), **ASKED)
        model.openai_api_base = elsewhere.url
        model.root_client.base_url = elsewhere.url
        assert model.invoke("x").content == "x"
        with pytest.raises(Refused, match="base_url"):
            model.bind(extra_body={"base_url": elsewhere.url}).invoke("x")
    assert elsewhere.seen == [] and len(local.seen) == 1


def test_tools_are_refused_by_name(tmp_path, local):
    with pytest.raises(Refused, match="`tools` is not accepted"):
        chat(gateway_of(tmp_path, local), **ASKED).bind_tools([{"type": "function", "function": {"name": "f"}}]).invoke(
            "x"
        )


def test_structured_output_passes(tmp_path, local):
    class Place(BaseModel):
        city: str

    local.reply = lambda body: '{"city": "Paris"}'
    model = chat(gateway_of(tmp_path, local), **ASKED).with_structured_output(Place, method="json_schema")
    assert model.invoke("Where?") == Place(city="Paris")
    assert local.seen[0]["response_format"]["type"] == "json_schema"


def test_in_a_chain(tmp_path, local):
    chain = (
        ChatPromptTemplate.from_messages([("user", "Say {word}")])
        | chat(gateway_of(tmp_path, local), **ASKED)
        | StrOutputParser()
    )
    assert chain.invoke({"word": "{braces} %s"}) == "Say {braces} %s"


def test_no_cache_answers_in_the_place_of_the_policy(tmp_path, local):
    set_llm_cache(InMemoryCache())
    try:
        model = chat(gateway_of(tmp_path, local), **ASKED)
        model.invoke("x")
        model.invoke("x")
    finally:
        set_llm_cache(None)
    assert len(local.seen) == 2 and [e["event"] for e in audited(tmp_path)] == ["admitted", "answered"] * 2


@pytest.mark.parametrize("variable", ["LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"])
def test_not_while_tracing_copies_prompts_to_a_cloud(tmp_path, local, variable, monkeypatch):
    gateway = gateway_of(tmp_path, local)
    monkeypatch.setenv(variable, "true")
    get_env_var.cache_clear()
    try:
        with pytest.raises(ValueError, match="LangSmith's tracing is on"):
            chat(gateway, **ASKED)
    finally:
        monkeypatch.delenv(variable)
        get_env_var.cache_clear()
    assert chat(gateway, **ASKED).invoke("x").content == "x"


def test_no_key_is_shown(tmp_path, local):
    gateway = gateway_of(tmp_path, local)
    key = gateway.keys.issue("robotics", date(9999, 12, 31))
    model = chat(gateway, **({k: v for k, v in ASKED.items() if k != "team"} | {"key": key}))
    assert model.invoke("x").content == "x" and key not in repr(model) + str(model.model_dump())
    assert key not in str(local.headers) + str(local.seen)
