"""What is no system, and what replies and errors are read as."""

import pytest
from httpx import Request, Response
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from openai import APIConnectionError, BadRequestError

from esa_notebooks.llm.evaluation.systems import System, SystemsError, language_model, reason_of, reply_of
from esa_notebooks.llm.failover import Fault
from esa_notebooks.llm.policy import Refused

SAYS = RunnableLambda(lambda given: "yes")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(kind="model"), "kind 'model'"),
        (dict(takes="message"), "input 'message'; did you mean 'messages'|input 'message'.*messages"),
        (dict(runnable=print), "builtin_function_or_method; give a LangChain runnable"),
        (dict(identity={}), "no identity"),
        (dict(identity={"t": float("nan")}), "no JSON"),
        (dict(identity={"t": object()}), "no JSON"),
    ],
)
def test_what_is_no_system_is_refused(given, words):
    with pytest.raises(SystemsError, match=words):
        System(**{"name": "s", "kind": "llm", "runnable": SAYS, "identity": {"v": 1}} | given)


def test_a_chat_model_that_does_not_tell_its_decoding_is_refused():
    with pytest.raises(SystemsError, match="temperature and seed and max_tokens"):
        language_model("s", SAYS, {"digest": "1"})


@pytest.mark.parametrize("answer", [None, 7, ["text"], {"text": "yes"}])
def test_what_is_neither_text_nor_message_is_a_failure(answer):
    with pytest.raises(TypeError, match="a text or a message is needed"):
        reply_of(answer, 1.0)


def test_a_message_without_notes_or_usage_is_read_for_what_it_tells():
    bare = reply_of(AIMessage("x"), 1.5)
    assert (bare.text, bare.total_s, bare.prompt_tokens, bare.endpoint, bare.first_token_s) == (
        "x",
        1.5,
        None,
        None,
        None,
    )
    noted = AIMessage(
        "x", response_metadata={"finish_reason": "stop", "esa": {"endpoint": "e", "finish": "length", "unknown": 1}}
    )
    assert (reply_of(noted, 1.5).finish, reply_of(noted, 1.5).total_s) == ("length", 1.5)
    assert reply_of(AIMessage("x", response_metadata={"finish_reason": "stop", "esa": None}), 1.5).finish == "stop"


def test_the_openai_client_s_errors_are_named_by_status_or_kind():
    request = Request("POST", "http://127.0.0.1/v1")
    full = BadRequestError(
        "This model's maximum context length is 2048", response=Response(400, request=request), body=None
    )
    bad = BadRequestError("temperature must not be negative", response=Response(400, request=request), body=None)
    assert [reason_of(e) for e in (full, bad, APIConnectionError(request=request))] == [
        "too long",
        "status 400",
        "APIConnectionError",
    ]


def test_the_gateway_s_word_is_found_among_the_causes():
    try:
        try:
            raise Refused("personal_data", "an address")
        except Refused as inner:
            raise APIConnectionError(request=Request("POST", "http://x")) from inner
    except APIConnectionError as outer:
        assert reason_of(outer) == "refused by policy"
    assert reason_of(Fault("cut")) == "cut" and reason_of(Fault("status", "", 503)) == "status 503"


def test_half_a_surrogate_pair_in_an_answer_is_replaced_and_a_whole_one_is_kept():
    assert reply_of("a\ud800b", 1).text == "a\ufffdb" and reply_of("\ud83d\ude80", 1).text == "\U0001f680"
