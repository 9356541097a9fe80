"""Two vLLM members, an adapter and ensembles over them, on a Ray cluster of their own."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import torch
from ray import serve
from safetensors.torch import save_file

from cluster.config import load
from cluster.local import running
from deployments.member import RemoteMember
from ensemble.testing.conformance import EngineConformance

pytestmark = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vLLM is not installed here; make test-vllm installs it"
)

CONFIGURATION = """
name: vllm-service
models:
  left: &member
    source: {{random: {{architecture: llama, config: {{num_attention_heads: 2, initializer_range: 0.3}}}}}}
    engine: vllm
    engine_options: {{kv_cache_memory_bytes: 33554432}}
    context_length: 128
    sessions: 4
    resources: &small {{cpus: 0.1}}
    adapters: {{left-lora: {adapter}}}
  right:
    <<: *member
    source: {{random: {{architecture: llama, seed: 1, config: {{num_attention_heads: 2, initializer_range: 0.3}}}}}}
    adapters: {{}}
ensembles:
  gac: {{method: gac, members: [left, right], resources: *small}}
  mixed: {{method: unite, members: [left-lora, right], resources: *small}}
  forest: {{method: agent_forest, members: [left, left-lora, right], options: {{samples: 6}}, resources: *small}}
gateway: {{resources: *small}}
"""
NAME = "vllm-service"


def write_adapter(folder: Path) -> Path:
    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    weights = {}
    for layer in range(2):
        stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{stem}.lora_A.weight"] = torch.randn(8, 64, generator=random)
        weights[f"{stem}.lora_B.weight"] = torch.randn(64, 8, generator=random)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    adapter = write_adapter(tmp_path_factory.mktemp("adapters") / "lora")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with running(load(CONFIGURATION.format(adapter=adapter)), port=port) as url:
        yield url


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=120) as client:
        yield client


def text(http: httpx.Client, model: str, question: str, **fields: object) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 8, **fields}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["left", "left-lora"])
async def member(request: pytest.FixtureRequest, url: str) -> AsyncIterator[RemoteMember]:
    """Through the wire; the adapter's deployment is its base model's."""
    yield await RemoteMember.connect(request.param, serve.get_deployment_handle("model-left", NAME))


@pytest.mark.asyncio(loop_scope="module")
class TestServedVllm(EngineConformance):
    """A vLLM member two processes away keeps the contract, and so does an adapter."""

    tolerance = 2e-4


def test_models_and_adapters_are_listed(http: httpx.Client) -> None:
    listed = {model["id"] for model in http.get("/v1/models").json()["data"]}
    assert listed == {"left", "left-lora", "right", "gac", "mixed", "forest"}


def test_an_adapter_answers_in_its_own_name(http: httpx.Client) -> None:
    questions = [f"question {number}" for number in range(4)]
    answers = {model: [text(http, model, question) for question in questions] for model in ("left", "left-lora")}
    assert answers["left"] != answers["left-lora"]


@pytest.mark.parametrize("model", ["gac", "mixed", "forest"])
def test_more_ensembles_than_places_and_plain_requests_between_all_end(http: httpx.Client, model: str) -> None:
    """Twelve ensembles on four places a member, with as many plain requests; what comes out is what comes alone."""
    asked = [(name, f"question {number}") for number in range(12) for name in (model, "left", "right")]
    with ThreadPoolExecutor(len(asked)) as pool:
        beside = list(pool.map(lambda pair: text(http, *pair, seed=3), asked))
    alone = [text(http, *pair, seed=3) for pair in asked[:6]]
    assert beside[:6] == alone
    held = [line for line in http.get("/metrics").text.splitlines() if line.startswith("ensemble_open_sessions")]
    assert held and all(line.endswith((" 0.0", " 0")) for line in held)


def test_what_a_vllm_member_cannot_do_is_refused_in_its_own_words(http: httpx.Client) -> None:
    body = {"model": "left", "messages": [{"role": "user", "content": "x" * 200}]}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "context_length_exceeded"
