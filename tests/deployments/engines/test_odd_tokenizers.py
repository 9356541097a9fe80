"""Tokenizers of strangers: folders in which the library finds something else than their files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from deployments.engines.fetching import load_tokenizer
from deployments.engines.tokenisation import HuggingFaceTokeniser, stop_ids_of

TEXT = "two  spaces, naïve 中文\n"


def folder_of(folder: Path, backend: Tokenizer, architecture: str, **fields: str) -> Path:
    """What a tokenizer's files are in a model's folder."""
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    (folder / "config.json").write_text(json.dumps({"model_type": architecture}))
    return folder


def byte_level() -> Tokenizer:
    alphabet = {character: byte for byte, character in bytes_to_unicode().items()}
    backend = Tokenizer(models.BPE(alphabet | {"th": 256}, [("t", "h")]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return backend


def words() -> Tokenizer:
    backend = Tokenizer(models.WordLevel({"?": 0, "two": 1, "spaces,": 2}, "?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<end>"])
    return backend


@pytest.mark.parametrize("named", ["LlamaTokenizerFast", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("make", [byte_level, words])
def test_texts_are_split_as_the_file_says_whatever_class_the_library_has(
    make, architecture: str, named: str, tmp_path: Path
) -> None:
    directory = folder_of(tmp_path, make(), architecture, tokenizer_class=named, eos_token="<end>")
    tokenizer = load_tokenizer(directory)
    assert tokenizer(TEXT, add_special_tokens=False).input_ids == make().encode(TEXT, add_special_tokens=False).ids
    assert stop_ids_of(tokenizer) == {make().token_to_id("<end>")}
    assert len(tokenizer) == make().get_vocab_size()


def test_distilled_models_write_what_they_have_learnt(tmp_path: Path) -> None:
    directory = folder_of(tmp_path, byte_level(), "llama", tokenizer_class="LlamaTokenizerFast", eos_token="<end>")
    of_the_architecture = AutoTokenizer.from_pretrained(directory)
    assert of_the_architecture(TEXT, add_special_tokens=False).input_ids != [*TEXT.encode()]
    tokeniser = HuggingFaceTokeniser(load_tokenizer(directory), 258, [257])
    assert tokeniser.encode(TEXT.encode()) == [*TEXT.encode()]
    assert tokeniser.vocabulary.text(range(258)) == bytes(range(256)) + b"th"


def test_names_that_the_class_knows_alone_are_kept(tmp_path: Path) -> None:
    backend = byte_level()
    backend.add_special_tokens(["<|endoftext|>"])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer = load_tokenizer(folder_of(tmp_path, backend, "gpt2", tokenizer_class="GPT2Tokenizer"))
    assert tokenizer.eos_token_id == backend.token_to_id("<|endoftext|>")
    assert tokenizer("th", add_special_tokens=False).input_ids == backend.encode("th").ids
