"""A policy with one endpoint on the premises and one in a cloud, both scripted: for the gateway and its campaign."""

import json
from pathlib import Path

from esa_notebooks.llm.gateway import Gateway
from esa_notebooks.llm.policy import parse_policy

KEY_ENV = "SCRIPTED_CLOUD_KEY"
KEY = "scripted-key-of-the-cloud"
CLASSES, PURPOSES = ("public", "internal", "restricted"), ("evaluation", "assistance")
CLOUD = {("public", "evaluation"), ("public", "assistance"), ("internal", "assistance")}  # what may leave


POLICY_FORM = """\
schema: esa-notebooks/llm-policy/1
classes: {{public: published, internal: not published, restricted: marked}}
purposes: {{evaluation: measuring a model, assistance: helping a person}}
premises: []
endpoints:
  cloud: {{where: cloud, url: '{cloud_url}', key_env: {KEY_ENV},
          models: {{small: far-small, far: f}}, timeout_s: {within_s}, max_tokens: 512}}
  local: {{where: on-premises, url: service, models: {{small: near-small}}, timeout_s: {within_s}, max_tokens: 512}}
allow:
  public: {{local: [evaluation, assistance], cloud: [evaluation, assistance]}}
  internal: {{local: [evaluation, assistance], cloud: [assistance]}}
  restricted: {{local: [evaluation, assistance]}}
teams:
  robotics: {{classes: [public, internal, restricted], purposes: [evaluation, assistance],
             quotas: {{tokens_per_day: {tokens}, requests_per_minute: {requests}}}}}
  outreach: {{classes: [public], purposes: [assistance], quotas: {{tokens_per_day: 1000, requests_per_minute: 5}}}}
content: {{max_bytes: 65536, markings: {{restricted: [ESA RESTRICTED]}},
          personal_data: {{internal: [email], restricted: [email]}}}}
audit: {{prompts: {prompts}}}
"""


def text_of(cloud_url="http://127.0.0.1:9/v1", *, within_s=5.0, tokens=10**9, requests=10**6, prompts=False):
    """The policy in YAML."""
    return POLICY_FORM.format(
        cloud_url=cloud_url,
        KEY_ENV=KEY_ENV,
        within_s=within_s,
        tokens=tokens,
        requests=requests,
        prompts=str(prompts).lower(),
    )


POLICY = text_of()


def policy_of(*cloud_url, **more):
    """The policy, read; the arguments are those of `text_of`."""
    return parse_policy(text_of(*cloud_url, **more))


def gateway_of(folder: Path, local=None, cloud=None, **more) -> Gateway:
    """A gateway over two scripted endpoints; None for the local service means that it is not running."""
    policy = policy_of(*([cloud.url] if cloud else []), **more)
    return Gateway(policy, folder, service_url=local.url if local else None)


def audited(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def said(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


ASKED = {"team": "robotics", "data_class": "internal", "purpose": "assistance", "model": "small", "max_tokens": 16}
