"""Every benchmark runs, at sizes that measure nothing, and ends with the figures it promises as one line of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from models import END, Shape, deepened, even, family, lettered  # type: ignore[import-not-found]  # noqa: E402

from deployments.engines.fetching import load  # noqa: E402
from deployments.engines.tokenisation import tokeniser_of  # noqa: E402

TINY = Shape(hidden=64, layers=4, heads=4, kv_heads=2, vocabulary=1000)
TEXT = "the quick brown fox jumps over the lazy dog"
SMALL = ("--hidden", "64", "--layers", "2", "--tokens", "6", "--rounds", "1")
STEP = {"step_ms", "engine_ms", "wire_ms", "driver_ms"}


def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"benchmarks/{name}.py", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=500)


def figures(name: str, *options: str) -> dict[str, Any]:
    """The last line of what a benchmark prints."""
    done = run(name, *options)
    assert done.returncode == 0, done.stderr
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def numbers(value: Any) -> Iterator[float]:
    """All figures in nested ones."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from numbers(inner)
    elif not isinstance(value, str):
        yield value


# models


@pytest.mark.parametrize("size", [END + 1, 300, 1000, 32_000])
def test_a_vocabulary_has_the_size_asked_for_and_loses_no_text(size: int) -> None:
    tokenizer = lettered(size)
    assert (len(tokenizer), tokenizer.eos_token_id) == (size, END)
    assert tokenizer.decode(tokenizer.encode(f"{TEXT} Ünï 3.14")) == f"{TEXT} Ünï 3.14"
    assert len(tokenizer.encode("QWERTY")) == 6


def test_large_vocabularies_hold_strings_of_up_to_four_letters() -> None:
    vocabulary = lettered(20_000).get_vocab()
    assert {len(token) for token in vocabulary if token != "<eos>"} == {1, 2, 3, 4}


@pytest.fixture(scope="module")
def kin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    sources = family(TINY, 1, 0.02, tmp_path_factory.mktemp("family"))
    return {name: Path(source["path"]) for name, source in sources.items()}


def written(folder: Path) -> list[int]:
    """Likeliest next token behind each beginning of a text."""
    model, tokenizer = load(folder)
    with torch.inference_mode():
        likeliest: list[int] = model(torch.tensor([tokenizer.encode(TEXT)])).logits[0].argmax(-1).tolist()
    return likeliest


def alike(left: Path, right: Path) -> float:
    pairs = list(zip(written(left), written(right), strict=True))
    return sum(a == b for a, b in pairs) / len(pairs)


def test_a_draft_mostly_agrees_with_its_model_and_a_twin_does_not(kin: dict[str, Path]) -> None:
    assert alike(kin["draft"], kin["large"]) > 0.6
    assert alike(kin["twin"], kin["large"]) < 0.2


def test_a_family_shares_its_files(kin: dict[str, Path]) -> None:
    nodes = [{file.stat().st_ino for file in folder.glob("*.safetensors")} for folder in kin.values()]
    large, twin, draft = nodes
    assert large & twin and draft < large
    sizes = {
        file.stat().st_ino: file.stat().st_size for folder in kin.values() for file in folder.glob("*.safetensors")
    }
    assert sum(sizes.values()) == pytest.approx(4 * TINY.parameters, rel=0.05)


def test_no_model_ends_of_itself_and_all_have_one_vocabulary(kin: dict[str, Path]) -> None:
    made = [load(folder) for folder in kin.values()]
    assert all(not model.get_output_embeddings().weight[END].any() for model, _ in made)
    vocabularies = {tokeniser_of(model, tokenizer).vocabulary.fingerprint for model, tokenizer in made}
    assert len(vocabularies) == 1


def test_a_shape_knows_how_large_it_is(kin: dict[str, Path]) -> None:
    model, _ = load(kin["large"])
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(TINY.parameters, rel=0.01)
    cache = model(torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values
    assert sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) == 3 * TINY.cached


def test_even_models_are_as_many_as_asked_for_and_deepened_ones_two(tmp_path: Path) -> None:
    assert list(even(TINY, tmp_path, 3)) == ["llama", "qwen2", "llama-3"]
    small, large = (load(Path(source["path"]))[0] for source in deepened(TINY, 1, 0.02, tmp_path).values())
    assert (small.config.num_hidden_layers, large.config.num_hidden_layers) == (1, TINY.layers)


# scripts


def test_without_a_card_the_gpu_benchmark_says_so_and_ends_with_status_2() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    done = run("gpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs an NVIDIA card" in done.stderr and len(done.stderr.splitlines()) == 1


def test_benchmarks_refuse_options_that_make_no_sense() -> None:
    done = run("growth", "--members", "1")
    assert done.returncode == 2
    assert "--members must be 2 or more" in done.stderr


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_the_cpu_with_all_methods() -> None:
    options = ("--device", "cpu", "--shapes", "tiny", "--engines", "transformers", "--concurrency", "2")
    told = figures("gpu", *options, "--tokens", "6", "--rounds", "1")
    assert told["card"] == "none"
    pairs = told["tiny"]["transformers"]
    assert list(pairs["even"]["2"]) == ["alone", "beside", "gac", "unite"]
    assert list(pairs["draft"]["2"]) == ["alone", "beside", "gac", "speculative_ensemble", "safe"]
    assert {"tokens_per_s", "of_beside", "of_alone", "first_ms", *STEP} == set(pairs["even"]["2"]["gac"])


@pytest.mark.slow
def test_the_baseline_writes_what_gac_writes() -> None:
    told = figures("baseline", *SMALL, "--vocabulary", "1000", "--concurrency", "1", "3")
    for concurrency in ("1", "3"):
        row = told[concurrency]
        assert list(row) == ["baseline", "ours", "ratio", "same"]
        assert row["same"] == 1
        assert row["ratio"] == pytest.approx(row["ours"] / row["baseline"], rel=0.05)


@pytest.mark.slow
def test_growth_tells_of_members_contexts_and_memory() -> None:
    told = figures("growth", *SMALL, "--members", "2", "3", "--context", "16", "300", "--concurrency", "1")
    row = {"tokens_per_s", "efficiency", *STEP}
    assert {name: set(own) for name, own in told["members"].items()} == {"2": row, "3": row}
    longer = row | {"prefill_ms", "cache_mb"}
    assert {name: set(own) for name, own in told["context"].items()} == {"16": longer, "300": longer}
    assert told["context"]["300"]["cache_mb"] > told["context"]["16"]["cache_mb"] > 0
    assert told["memory"]["open_requests"] == 64 and told["memory"]["allocated_kb"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [("driver", "--tokens", "8", "--rounds", "1"), ("efficiency", *SMALL)])
def test_a_benchmark_ends_with_figures_by_concurrency(options: tuple[str, ...]) -> None:
    name, *rest = options
    told = figures(name, *rest, "--methods", "gac", "unite", "--concurrency", "1", "2")
    by_method = told if name == "driver" else told["2"]
    assert {"gac", "unite"} <= set(by_method)
    assert all(number > 0 for number in numbers(by_method["gac"]))


@pytest.mark.slow
def test_overload_tells_of_each_load_and_loses_no_request() -> None:
    told = figures("overload", "--tokens", "8", "--seconds", "1", "--rounds", "1")
    assert set(told["loads"]) == {"1", "2", "10"} and len(told["rounds"]) == 1
    row = {"tokens_per_s", "answered_per_s", "refused_per_s", "refusal_ms", "failed"}
    assert all(set(load) == row and load["failed"] == 0 for load in told["loads"].values())
    assert told["loads"]["1"]["refused_per_s"] == 0 < told["loads"]["10"]["refused_per_s"]
