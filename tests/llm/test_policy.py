"""Who may send what where: read strictly, refused by default, and never across a class."""

import pickle
import random
from pathlib import Path

import pytest
import yaml

from esa_notebooks.llm.policy import STATUS, PolicyError, Refused, _made, address, parse_policy, permitted, read_policy

ROOT = Path(__file__).resolve().parents[2]
TEXT = """
schema: esa-notebooks/llm-policy/1
classes: {public: published, internal: not published, restricted: marked}
purposes: {evaluation: measuring, assistance: helping}
premises: [llm.agency.example, "*.esa.example"]
endpoints:
  far: {where: cloud, url: https://llm.cloud.example/v1, key_env: FAR_KEY, models: {m: large, big: large}, timeout_s: 60, max_tokens: 512}
  near: {where: on-premises, url: service, models: {m: small}, timeout_s: 60, max_tokens: 512}
  hall: {where: on-premises, url: "http://gpu7.esa.example:8000/v1", models: {m: small}, timeout_s: 60, max_tokens: 512}
allow:
  public: {near: [evaluation, assistance], far: [assistance], hall: [evaluation]}
  internal: {near: [evaluation, assistance]}
  restricted: {near: [evaluation]}
teams:
  data-ai: {classes: [public, internal, restricted], purposes: [evaluation, assistance], quotas: {tokens_per_day: 1000, requests_per_minute: 60}}
  guests: {classes: [public], purposes: [assistance], quotas: {tokens_per_day: 10, requests_per_minute: 1}}
content: {max_bytes: 4096, markings: {restricted: [ESA RESTRICTED]}, personal_data: {restricted: [email]}}
audit: {prompts: false}
"""


@pytest.fixture(scope="module")
def policy():
    return parse_policy(TEXT)


def names(policy, **asked):
    return [e.name for e in permitted(policy, **({"team": "data-ai", "model": "m"} | asked))]


def test_the_premises_come_first_whatever_the_file_says(policy):
    assert list(policy.endpoints) == ["near", "hall", "far"]
    assert names(policy, data_class="public", purpose="assistance") == ["near", "far"]
    assert names(policy, data_class="public", purpose="evaluation") == ["near", "hall"]


def test_only_what_is_named_is_allowed(policy):
    assert names(policy, data_class="internal", purpose="assistance") == ["near"]
    assert names(policy, data_class="restricted", purpose="evaluation") == ["near"]
    assert names(policy, data_class="public", purpose="assistance", model="big") == ["far"]


@pytest.mark.parametrize(
    "asked,code,status,says",
    [
        ({"data_class": "restricted", "purpose": "assistance"}, "not_allowed", 403, "at no endpoint"),
        (
            {"data_class": "internal", "purpose": "assistance", "model": "big"},
            "not_allowed",
            403,
            "near, where big is not served",
        ),
        ({"data_class": "Restricted", "purpose": "evaluation"}, "unknown_class", 400, "Did you mean `restricted`?"),
        ({"data_class": "public", "purpose": "evaluations"}, "unknown_purpose", 400, "Did you mean `evaluation`?"),
        (
            {"data_class": "public", "purpose": "evaluation", "model": "bigg"},
            "unknown_model",
            404,
            "Did you mean `big`?",
        ),
        (
            {"data_class": "public", "purpose": "evaluation", "team": "data-a1"},
            "unknown_team",
            403,
            "Did you mean `data-ai`?",
        ),
        (
            {"data_class": "internal", "purpose": "assistance", "team": "guests"},
            "not_allowed",
            403,
            "it may use public",
        ),
        (
            {"data_class": "public", "purpose": "evaluation", "team": "guests"},
            "not_allowed",
            403,
            "it may use assistance",
        ),
        ({"data_class": "", "purpose": "evaluation"}, "unknown_class", 400, "public, internal, restricted"),
    ],
)
def test_refusals_say_what_and_what_else(policy, asked, code, status, says):
    with pytest.raises(Refused) as refused:
        names(policy, **asked)
    assert (refused.value.code, refused.value.status) == (code, status) and says in str(refused.value)


@pytest.mark.parametrize(
    "old,new,says",
    [
        (
            "restricted: {near: [evaluation]}",
            "restricted: {near: [evaluation], far: [evaluation]}",
            "never leaves the premises",
        ),
        ("internal: {near: [evaluation, assistance]}", "internal: {far: [evaluation]}", "Were two rows swapped?"),
        (
            "far: [assistance], hall",
            "fra: [assistance], hall",
            "endpoint `fra`, which the policy does not declare. Did you mean `far`?",
        ),
        ("internal: {near: [evaluation, assistance]}", "internl: {near: [evaluation]}", "Did you mean `internal`?"),
        ("internal: {near: [evaluation, assistance]}", "internal: {near: [assistence]}", "Did you mean `assistance`?"),
        ("internal: {near: [evaluation, assistance]}", "internal: {near: []}", "must not be empty"),
        ("internal: {near: [evaluation, assistance]}", "public: {near: [evaluation]}", "stands twice"),
        ("classes: [public], purposes", "classes: [publik], purposes", "Did you mean `public`?"),
        ("purposes: [assistance], quotas", "purpose: [assistance], quotas", "Did you mean `purposes`?"),
        ("tokens_per_day: 10,", "tokens_per_day: 0,", "tokens_per_day"),
        ("tokens_per_day: 10,", "tokens_per_day: .inf,", "no bound"),
        ("where: cloud", "where: clout", "Did you mean `cloud`?"),
        ("key_env: FAR_KEY, ", "", "lacks `key_env`"),
        ("key_env: FAR_KEY", "key_env: sk-abcdef", "never a key itself"),
        ("https://llm.cloud.example/v1", "http://llm.cloud.example/v1", "unencrypted"),
        ("https://llm.cloud.example/v1", "https://me:word@llm.cloud.example/v1", "carries a user or password"),
        ("https://llm.cloud.example/v1", "'https://llm.cloud.example/v1?token=x'", "a URL such as"),
        ("https://llm.cloud.example/v1", "ftp://llm.cloud.example/v1", "a URL such as"),
        ("https://llm.cloud.example/v1", "service", "not in a cloud"),
        ("http://gpu7.esa.example:8000/v1", "https://llm.cloud.example/v1", "not among the `premises`"),
        ("http://gpu7.esa.example:8000/v1", "http://gpu7.esa.example.evil.example/v1", "not among the `premises`"),
        ("http://gpu7.esa.example:8000/v1", "http://gpu7.esa.example:port/v1", "a URL such as"),
        ("audit: {prompts: false}", "audit: {}", "lacks `prompts`"),
        ("audit: {prompts: false}", "audit: {prompts: no-never}", "true or false"),
        ("[ESA RESTRICTED]", "[ESA]", "too short"),
        ("personal_data: {restricted: [email]}", "personal_data: {restricted: [e-mail]}", "Did you mean `email`?"),
        ("esa-notebooks/llm-policy/1", "esa-notebooks/llm-policy/2", "It may be"),
        ("classes: {public", "classes: [public", "cannot be read as YAML"),
        ("timeout_s: 60, max_tokens: 512}\nallow", "timeout_s: 0, max_tokens: 512}\nallow", "timeout_s"),
        ("  near: {where", "  Near by: {where", "small letters"),
    ],
)
def test_a_wrong_policy_is_not_read(old, new, says):
    assert TEXT.count(old) >= 1
    with pytest.raises(PolicyError) as error:
        parse_policy(TEXT.replace(old, new, 1))
    assert says in str(error.value) and str(error.value).startswith("policy.yaml")


def test_a_missing_policy_names_a_near_one(tmp_path):
    (tmp_path / "policy.yaml").write_text(TEXT)
    assert read_policy(tmp_path / "policy.yaml").sha256 == parse_policy(TEXT).sha256 != parse_policy(TEXT + "\n").sha256
    with pytest.raises(PolicyError, match="Did you mean `policy.yaml`"):
        read_policy(tmp_path / "polcy.yaml")


def test_the_service_must_lie_where_it_says(policy):
    near, hall, far = policy.endpoints.values()
    assert address(policy, near) is None
    assert address(policy, near, "http://127.0.0.1:8001/v1") == "http://127.0.0.1:8001/v1"
    assert address(policy, hall, "http://127.0.0.1:8001/v1") == hall.url and address(policy, far) == far.url
    for url in (
        "https://api.provider.example/v1",
        "http://127.0.0.1.evil.example/v1",
        "http://user@127.0.0.1@evil.example/v1",
    ):
        with pytest.raises(PolicyError):
            address(policy, near, url)


def test_a_single_class_has_no_cloud():
    """The rule is about the last class, so a policy cannot get round it by having one class only."""
    slim = yaml.safe_load(TEXT)
    slim["classes"], slim["allow"] = {"public": "all"}, {"public": {"far": ["assistance"]}}
    slim["teams"] = {"data-ai": slim["teams"]["data-ai"] | {"classes": ["public"]}}
    slim["content"] |= {"markings": {}, "personal_data": {}}
    with pytest.raises(PolicyError, match="never leaves"):
        parse_policy(yaml.safe_dump(slim, sort_keys=False))


def a_policy(rng: random.Random) -> dict:
    """A random policy, as the mapping that its YAML says; often one that must not be read."""
    classes = [f"c{i}" for i in range(rng.randint(1, 4))]
    purposes = [f"p{i}" for i in range(rng.randint(1, 3))]
    endpoints = {}
    for i in range(rng.randint(1, 4)):
        cloud = rng.random() < 0.5
        endpoints[f"e{i}"] = {
            "where": "cloud" if cloud else "on-premises",
            "models": {m: m for m in "ab" if rng.random() < 0.7} or {"a": "a"},
            "url": f"https://e{i}.example/v1" if cloud else "service",
            "timeout_s": 1,
            "max_tokens": 9,
            **({"key_env": "K"} if cloud else {}),
        }
    allow, before = {}, {}
    for place, c in enumerate(classes):
        row = {}
        for e, said in endpoints.items():
            may = [p for p in purposes if rng.random() < 0.6]
            if said["where"] == "cloud" and rng.random() < 0.9:  # mostly as the rules want it
                may = [] if place == len(classes) - 1 else [p for p in may if place == 0 or p in before.get(e, [])]
            if may:
                row[e] = may
        allow[c] = before = row
    some = lambda of: [x for x in of if rng.random() < 0.8]  # noqa: E731
    quotas = lambda: {"tokens_per_day": 9, "requests_per_minute": 9}  # noqa: E731  one each: YAML would make an alias of a shared one
    return {
        "schema": "esa-notebooks/llm-policy/1",
        "classes": dict.fromkeys(classes, "a class"),
        "purposes": dict.fromkeys(purposes, "why"),
        "premises": [],
        "endpoints": endpoints,
        "allow": allow,
        "teams": {
            f"t{i}": {"classes": some(classes), "purposes": some(purposes), "quotas": quotas()} for i in range(2)
        },
        "content": {"max_bytes": 9, "markings": {}, "personal_data": {}},
        "audit": {"prompts": False},
    }


def test_what_is_permitted_is_named_by_a_rule():
    """2,000 random policies and requests: judged here from the mapping itself, without the code under test.

    Every fortieth goes through YAML as well; reading all of them so would take a minute.
    """
    rng, seen = random.Random(7), {"permitted": 0, "refused": 0, "not read": 0, "cloud": 0}
    for n in range(2000):
        told = a_policy(rng)
        last, ends = list(told["classes"])[-1], told["endpoints"]
        leaves = any(ends[e]["where"] == "cloud" for e in told["allow"][last])
        rows = [told["allow"][c] for c in told["classes"]]
        swapped = any(
            set(more.get(e, [])) - set(less.get(e, []))
            for less, more in zip(rows, rows[1:], strict=False)
            for e in ends
            if ends[e]["where"] == "cloud"
        )
        try:
            policy = (
                parse_policy(yaml.safe_dump(told, sort_keys=False)) if n % 40 == 0 else _made(told, "policy.yaml", "")
            )
        except PolicyError:
            assert leaves or swapped
            seen["not read"] += 1
            continue
        assert not leaves and not swapped
        asked = {
            "team": rng.choice(["t0", "t1"]),
            "data_class": rng.choice([*list(told["classes"]) * 3, "c9"]),
            "purpose": rng.choice([*list(told["purposes"]) * 3, "p9"]),
            "model": rng.choice("aaabbz"),
        }
        who, row = told["teams"][asked["team"]], told["allow"].get(asked["data_class"], {})
        want = {
            e
            for e, purposes in row.items()
            if asked["purpose"] in purposes
            and asked["model"] in ends[e]["models"]
            and asked["data_class"] in who["classes"]
            and asked["purpose"] in who["purposes"]
        }
        try:
            got = permitted(policy, **asked)
        except Refused:
            assert want == set()
            seen["refused"] += 1
            continue
        assert {e.name for e in got} == want and got
        assert [e.where for e in got] == sorted((e.where for e in got), reverse=True)  # on-premises before cloud
        assert asked["data_class"] != last or all(e.where == "on-premises" for e in got)
        seen["permitted"] += 1
        seen["cloud"] += any(e.where == "cloud" for e in got)
    assert min(seen.values()) > 50, seen  # each branch was tried


def test_a_refusal_survives_another_process():
    told = pickle.loads(pickle.dumps(Refused("quota", "later", retry_after_s=3.0)))
    assert (told.code, told.status, told.retry_after_s, str(told)) == ("quota", 429, 3.0, "later")
    assert set(STATUS.values()) <= {400, 401, 403, 404, 413, 429}


def test_the_policy_of_the_project():
    """What is committed can be read, keeps the cloud to published data, and sends nothing there without a key."""
    policy = read_policy(ROOT / "governance" / "policy.yaml")
    assert policy.classes == ("public", "internal", "restricted")
    clouds = {e.name for e in policy.endpoints.values() if e.where == "cloud"}
    assert clouds and {c for c in policy.classes if clouds & set(policy.allow[c])} == {"public"}
    assert all(policy.endpoints[name].url.split("/")[2].endswith(".example") for name in clouds), (
        "no real provider is committed"
    )
    for purpose in policy.purposes:  # a measurement never mixes two models under one name
        for model in policy.endpoints["local"].models.values():
            assert [
                e.name
                for e in permitted(policy, team="data-ai-unit", data_class="public", purpose=purpose, model=model)
            ] == ["local"]


@pytest.mark.parametrize("asked", [{"team": None}, {"model": ["m"]}, {"purpose": {}}, {"data_class": 7}])
def test_a_name_is_text(policy, asked):
    with pytest.raises(Refused, match="is no text") as refused:
        names(policy, **({"data_class": "public", "purpose": "assistance"} | asked))
    assert refused.value.status == 400


def test_a_prompt_in_the_wrong_field_is_not_repeated(policy):
    with pytest.raises(Refused) as refused:
        names(policy, data_class="x" * 100_000, purpose="assistance")
    assert len(str(refused.value)) < 300
