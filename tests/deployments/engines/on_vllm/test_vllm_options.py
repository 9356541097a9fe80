"""What may be passed on to vLLM, and what its arguments become: checked without vLLM."""

from __future__ import annotations

import json
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cluster.app import settings_of
from cluster.config import load
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import ZooSource
from deployments.engines.vllm import options
from deployments.engines.vllm.starting import arguments, environment, turn
from ensemble.errors import ConfigurationError


def settings(**changes: Any) -> ModelSettings:
    return ModelSettings(name="m", source=ZooSource(zoo="adder"), engine="vllm", **changes)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("max_model_len", 64, "is set with the model's own key context_length"),
        ("tensor_parallel_size", 2, "is set with the model's own key tensor_parallel"),
        ("max_logprobs", 5, "cannot be set: there is no limit"),
        ("trust_remote_code", True, "cannot be set: code that comes with a model is never run"),
    ],
)
def test_what_is_set_elsewhere_is_refused_with_where(name: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=f"engine_options.{name} {rule}") as refused:
        options.check({name: value})
    assert refused.value.param == f"engine_options.{name}"


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here; make test-vllm installs it")
@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("blok_size", 32, "is no engine argument of vLLM, did you mean 'block_size'"),
        ("block_size", "32", "is '32'; allowed: int or null"),
        ("block_size", True, "is True; allowed: int or null"),
        ("enforce_eager", 1, "is 1; allowed: bool"),
    ],
)
def test_names_and_plain_types_are_those_of_the_installed_vllm(name: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=rule):
        options.check({name: value})
    options.check({"block_size": 32, "enforce_eager": True, "gpu_memory_utilization": 1, "quantization": None})


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here; make test-vllm installs it")
def test_every_argument_that_is_ours_is_one_of_the_installed_vllm() -> None:
    known = options.arguments()
    made = arguments(settings(tensor_parallel=2, pipeline_parallel=2, gpu_share=0.5), Path("m"), 64, cpu=False)
    assert set(made) <= set(known)
    assert {*options._OURS, *options._FIXED} - set(known) <= {
        "enable_lora",
        "max_loras",
        "max_lora_rank",
        "lora_modules",
    }


def test_keys_of_the_model_become_arguments() -> None:
    made = arguments(settings(slots=7, dtype="bfloat16", engine_options={"block_size": 64}), Path("m"), 99, cpu=True)
    expected = {"model": "m", "max_num_seqs": 7, "dtype": "bfloat16", "max_model_len": 99, "block_size": 64}
    assert expected.items() <= made.items()
    assert arguments(settings(), Path("m"), 9, cpu=True)["dtype"] == "float32"
    assert arguments(settings(), Path("m"), 9, cpu=False)["dtype"] == "auto"
    assert environment(settings(threads=3))["OMP_NUM_THREADS"] == "3"


def test_a_part_of_a_gpu_is_a_part_of_its_memory() -> None:
    shared = arguments(settings(gpu_share=0.5), Path("m"), 9, cpu=False)
    assert shared["gpu_memory_utilization"] == pytest.approx(0.45)
    own = settings(gpu_share=0.5, engine_options={"gpu_memory_utilization": 0.3})
    assert arguments(own, Path("m"), 9, cpu=False)["gpu_memory_utilization"] == 0.3
    assert "gpu_memory_utilization" not in arguments(settings(), Path("m"), 9, cpu=False)


@pytest.mark.parametrize(("tensor", "pipeline", "backend"), [(1, 1, None), (2, 1, "mp"), (1, 2, "ray"), (2, 2, "ray")])
def test_parallel_parts_choose_the_executor(tensor: int, pipeline: int, backend: str | None) -> None:
    made = arguments(settings(tensor_parallel=tensor, pipeline_parallel=pipeline), Path("m"), 9, cpu=False)
    assert made["tensor_parallel_size"] == tensor and made["pipeline_parallel_size"] == pipeline
    assert made.get("distributed_executor_backend") == backend


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (9, 16), (300, 320)])
def test_adapters_get_room_for_their_rank(tmp_path: Path, rank: int, room: int) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    made = arguments(settings(adapters={"a": tmp_path}), Path("m"), 9, cpu=False)
    assert (made["enable_lora"], made["max_loras"], made["max_lora_rank"]) == (True, 1, room)


def test_adapters_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"adapter a: .*adapter_config.json cannot be read"):
        arguments(settings(adapters={"a": tmp_path}), Path("m"), 9, cpu=True)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1000}))
    with pytest.raises(ConfigurationError, match="has rank 1000; vLLM serves 512 at most"):
        arguments(settings(adapters={"a": tmp_path}), Path("m"), 9, cpu=True)


@pytest.mark.parametrize(
    ("share", "cards", "together"), [(0.5, ("0", "0"), False), (0.5, ("0", "1"), True), (1.0, ("0", "0"), True)]
)
def test_models_that_share_a_card_are_loaded_one_after_the_other(
    share: float, cards: tuple[str, str], together: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.engines.vllm.starting.gettempdir", lambda: str(tmp_path))
    loaded = threading.Event()

    def load_second() -> None:
        with turn(settings(gpu_share=share)):
            loaded.set()

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cards[0])
    with turn(settings(gpu_share=share)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cards[1])
        second = threading.Thread(target=load_second)
        second.start()
        assert loaded.wait(5 if together else 0.2) is together
    second.join(5)
    assert loaded.is_set()


def test_the_configuration_file_reaches_the_engine(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(
        "models:\n"
        "  a:\n"
        "    source: {zoo: adder}\n"
        "    engine: vllm\n"
        "    engine_options: {kv_cache_memory_bytes: 1000}\n"
        "    adapters: {tuned: lora}\n"
        "    resources: {gpus: 0.25}\n"
    )
    configuration = load(file)
    made = settings_of("a", configuration.models["a"])
    assert made.engine_options == {"kv_cache_memory_bytes": 1000} and made.gpu_share == 0.25
    assert made.adapters == {"tuned": tmp_path / "lora"}
    assert configuration.bases == {"a": "a", "tuned": "a"}
