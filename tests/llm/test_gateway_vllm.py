"""Door and front over the real vLLM with the embedded model: the same text, real streams, errors and cancelling."""

from datetime import date

import httpx
import pytest

from esa_notebooks.llm.course import NotDelivered
from esa_notebooks.llm.door import chat
from esa_notebooks.llm.front import application, serving
from esa_notebooks.llm.gateway import Gateway
from esa_notebooks.llm.policy import parse_policy
from tests.llm.endpoints import Endpoint
from tests.llm.gateway_world import KEY, KEY_ENV, audited, said, text_of

ASKED = {"team": "robotics", "data_class": "internal", "purpose": "assistance", "model": "small", "max_tokens": 12}
QUESTIONS = ["What is the capital of France?", "{0} {user} %s", "Name a planet."]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def gateway(vllm, tmp_path):
    text = text_of(within_s=120).replace("near-small", vllm.model)
    return Gateway(parse_policy(text), tmp_path, service_url=vllm.url)


def bare(vllm, question):
    body = {"model": vllm.model, "messages": said(question), "max_tokens": 12, "temperature": 0, "seed": 0}
    return httpx.post(f"{vllm.url}/chat/completions", json=body, timeout=120, trust_env=False).json()


def test_the_door_says_what_the_bare_service_says(gateway, vllm):
    direct = [bare(vllm, q) for q in QUESTIONS]
    answers = chat(gateway, **ASKED).batch(QUESTIONS, config={"max_concurrency": 3})
    timed = chat(gateway, **ASKED, first_token=True).invoke(QUESTIONS[0])
    assert [a.content for a in answers] == [d["choices"][0]["message"]["content"] for d in direct]
    assert [a.usage_metadata["total_tokens"] for a in answers] == [d["usage"]["total_tokens"] for d in direct]
    assert timed.content == answers[0].content and 0 < timed.response_metadata["esa"]["first_token_s"]
    assert timed.usage_metadata == answers[0].usage_metadata
    assert {e["event"] for e in audited(gateway.audit.path.parent)} == {"admitted", "answered"}


def test_log_probabilities_pass_plain_and_timed(gateway):
    for first_token in (False, True):
        model = chat(gateway, **ASKED, first_token=first_token).bind(logprobs=True, top_logprobs=2)
        told = model.invoke(QUESTIONS[0])
        tokens = told.response_metadata["logprobs"]["content"]
        assert len(tokens) == told.usage_metadata["output_tokens"] and len(tokens[0]["top_logprobs"]) == 2


def test_the_front_streams_it(gateway, vllm):
    key = gateway.keys.issue("robotics", date(9999, 12, 31))
    headers = {"Authorization": f"Bearer {key}", "X-Data-Class": "restricted", "X-Purpose": "evaluation"}
    body = {
        "model": "small",
        "messages": said(QUESTIONS[0]),
        "max_tokens": 12,
        "stream": True,
        "temperature": 0,
        "seed": 0,
    }
    with serving(application(gateway)) as url:
        told = httpx.post(f"{url}/v1/chat/completions", headers=headers, json=body, timeout=120, trust_env=False)
    assert told.status_code == 200 and told.text.rstrip().endswith("data: [DONE]")
    assert audited(gateway.audit.path.parent)[-1]["event"] == "answered"


def test_a_prompt_too_long_for_the_model_is_its_own_answer_and_goes_nowhere_else(vllm, tmp_path, monkeypatch):
    """vLLM says 400; a gateway that went on after any error would now send the prompt to the cloud."""
    monkeypatch.setenv(KEY_ENV, KEY)
    with Endpoint() as cloud:
        text = text_of(cloud.url, within_s=120).replace("near-small", vllm.model)
        gateway = Gateway(parse_policy(text), tmp_path, service_url=vllm.url)
        with pytest.raises(NotDelivered, match="2048") as caught:
            chat(gateway, **ASKED).invoke("word " * 3000)
    assert caught.value.status == 400 and cloud.seen == []


def test_leaving_a_stream_stops_the_engine(gateway, vllm):
    for _ in chat(gateway, **(ASKED | {"max_tokens": 500})).stream("Write a very long story about a robot."):
        break

    def running():
        page = httpx.get(vllm.url.removesuffix("/v1") + "/metrics", trust_env=False).text
        return sum(
            float(line.split()[-1]) for line in page.splitlines() if line.startswith("vllm:num_requests_running")
        )

    with Endpoint() as clock:
        assert clock.wait(lambda: running() == 0, 15)
        assert clock.wait(lambda: audited(gateway.audit.path.parent)[-1]["event"] == "cancelled")
