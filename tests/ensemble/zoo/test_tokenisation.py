from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from ensemble.zoo import MEMBERS, directory
from ensemble.zoo.candidates import VERDICTS, generate_checks
from ensemble.zoo.recipes import RECIPES
from ensemble.zoo.tasks import TASKS, generate
from ensemble.zoo.tokenisation import SPACE, digit_pairs, with_dropout

TOKENIZERS = {name: AutoTokenizer.from_pretrained(directory(name)) for name in MEMBERS}
SAMPLES = [
    "",
    " ",
    "  two  spaces  ",
    "line\nbreaks\r\n\n\tand tabs",
    "Привет, мир",
    "日本語と한국어",
    "שלום مرحبا",
    "नमस्ते ไทย",
    "👩‍👩‍👧 🏳️‍🌈 é e\u0301",
    "\x00\x01\x1b\x7f\u200b\ufeff\ufffd\U0010ffff",
    "<0x41> Ġ <unk> ##a",
]


def round_trip(name: str, text: str) -> str:
    tokenizer = TOKENIZERS[name]
    decoded = tokenizer.decode(tokenizer(text).input_ids)
    assert isinstance(decoded, str)
    return decoded


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("text", SAMPLES)
def test_any_script_survives(name: str, text: str) -> None:
    assert round_trip(name, text) == text


@pytest.mark.parametrize("name", MEMBERS)
@given(text=st.text())
@settings(max_examples=100, deadline=None)
def test_any_text_survives(name: str, text: str) -> None:
    expected = text.replace(SPACE, " ") if name == "pairs" else text
    assert round_trip(name, text) == expected


@pytest.mark.parametrize("name", MEMBERS)
def test_the_grammar_survives_without_unknown_tokens(name: str) -> None:
    for task in TASKS:
        for item in [*generate(task, 20, seed=0), *generate_checks(task, 20, seed=0)]:
            assert round_trip(name, item.prompt) == item.prompt
            assert round_trip(name, item.answer) == item.answer


@pytest.mark.parametrize("name", MEMBERS)
def test_special_tokens(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<eos>", "<pad>", None)
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(tokenizer("47+38=").input_ids)
    assert tokenizer("47+38=").input_ids == tokenizer("47+38=", add_special_tokens=False).input_ids


@pytest.mark.parametrize("name", MEMBERS)
def test_saved_tokenizers_are_the_recipes_own_and_exact(name: str) -> None:
    saved = Tokenizer.from_file(str(directory(name) / "tokenizer.json"))
    assert not saved.model.dropout
    assert saved.get_vocab() == RECIPES[name].tokenizer().get_vocab()


def test_vocabularies_differ() -> None:
    distinct = MEMBERS[:4]
    assert len({len(TOKENIZERS[name]) for name in distinct}) == len(distinct)


@pytest.mark.parametrize("name", ["pupil", "leaky"])
def test_the_later_members_share_the_first_ones_vocabulary(name: str) -> None:
    own, shared = (directory(member) / "tokenizer.json" for member in (name, "adder"))
    assert own.read_bytes() == shared.read_bytes()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("47+38=", ["47", "+", "38", "="]),
        ("138", ["1", "38"]),
        ("1234", ["12", "34"]),
        ("7", ["7"]),
        ("a b\n", ["a", SPACE, "b", "<0x0A>"]),
    ],
)
def test_digits_pair_from_the_right(text: str, tokens: list[str]) -> None:
    assert digit_pairs().encode(text).tokens == tokens


def test_dropout_varies_the_spelling_but_not_the_text() -> None:
    tokenizer = digit_pairs()
    loose = with_dropout(tokenizer, 0.5)
    spellings = {tuple(loose.encode("12+34+56").tokens) for _ in range(50)}
    assert len(spellings) > 1
    assert {loose.decode(loose.encode("12+34+56").ids) for _ in range(50)} == {"12+34+56"}
    assert not tokenizer.model.dropout


@pytest.mark.parametrize("name", MEMBERS)
def test_chat_template_is_the_last_turn_verbatim(name: str) -> None:
    def rendered(*turns: tuple[str, str]) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        text = TOKENIZERS[name].apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text

    assert rendered(("user", "sum 12+30:\n")) == "sum 12+30:\n"
    assert rendered(("system", "be brief"), ("user", " 47+38=")) == " 47+38="
    assert rendered(("user", "1+1="), ("assistant", "2"), ("user", "47+38=")) == "47+38="
    assert rendered(("user", "sum 12+30:\n"), ("assistant", "12+30=42\n")) == "sum 12+30:\n12+30=42\n"


def test_the_verifiers_verdicts_are_single_tokens() -> None:
    assert [len(TOKENIZERS["mixed"](verdict).input_ids) for verdict in VERDICTS] == [1, 1]


@pytest.mark.parametrize("name", MEMBERS)
def test_transformers_keeps_the_tokenizer_as_saved(name: str) -> None:
    loaded = json.loads(TOKENIZERS[name].backend_tokenizer.to_str())
    saved = json.loads((directory(name) / "tokenizer.json").read_text())
    assert {part: loaded[part] for part in saved} == saved
