"""Real tokenizers as bytes: the vocabulary and the tokeniser of a Hugging Face model.

Covers byte-level BPE, SentencePiece with byte fallback, and plain vocabularies (WordPiece, word level, characters).
Bytes come from the tokenizer's own decoder; spelling is checked against them at every call, so that
``Tokeniser``'s promise holds for any tokenizer. Knows nothing of models, prompts and chat templates.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from deployments.engines.templates import end_of_turn
from ensemble.vocabulary import LongestMatch, Tokeniser, Unspellable, Vocabulary

log = logging.getLogger(__name__)

_BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_BROKEN = re.compile("([\udc80-\udcff]+)")
"""Bytes that are no UTF-8, as ``surrogateescape`` writes them."""

_LOSSY = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "BertNormalizer"}) | frozenset(
    {"Nmt", "Precompiled", "Prepend"}
)
"""Normalisers that change text, or that put a space before it."""

_WRITTEN = (*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF1))
"""Bytes of the texts that people write: of ASCII without control characters, and of all scripts and symbols in use."""

_PROBES = (
    "The quick brown fox, 3.14 and 1,234.",
    " leading, trailing ",
    "two  spaces\ttab\n\n\nlines\r\n",
    'def f(x):\n    return {"a": [x, -1]}  # code',
    "Überraschung, naïve café, ﬁ, Ǆ, Å, e\u0301",
    "中文，日本語、한국어; العربية ไทย हिन्दी",
    "👩‍👩‍👧‍👦 🏳️‍🌈 é \u200b\u00a0\ufeff",
    "\x00\x01\x1b\x7f",
)


def stop_ids_of(tokenizer: PreTrainedTokenizerFast, *configs: Any) -> frozenset[int]:
    """Every id that ends an answer: the end tokens of the configurations (``config``, ``generation_config``), the
    tokenizer's own, and the one that the chat template writes after an assistant's turn.
    """
    given = [getattr(config, "eos_token_id", None) for config in configs]
    found = [*given, tokenizer.eos_token_id, end_of_turn(tokenizer)]
    flat = (i for ids in found for i in (ids if isinstance(ids, list | tuple) else [ids]))
    return frozenset(int(i) for i in flat if i is not None)


def vocabulary_of(tokenizer: PreTrainedTokenizerFast, size: int, stop_ids: Iterable[int]) -> Vocabulary:
    """The bytes of every id.

    Special tokens, stop ids and logit rows without a token have none; other added tokens keep their text. A token
    of a vocabulary that writes words apart (WordPiece, word level) includes the space before it.

    Args:
        size: width of the logits; tokens beyond it are left out.
    """
    stops = frozenset(stop_ids)
    table = _table(tokenizer)
    silent = stops | _special_ids(tokenizer)
    tokens = tuple(b"" if i in silent else table.get(i, b"") for i in range(size))
    return Vocabulary(tokens, frozenset(i for i in stops if i < size))


class HuggingFaceTokeniser(Tokeniser):
    """A Hugging Face tokenizer for text in the middle of an answer.

    It works on a private copy that adds no space before the text, normalises nothing and reads no special tokens.
    Characters that the copy cannot write as they are get spelt by longest match over the vocabulary's bytes.
    """

    lossless: bool
    """Whether the tokenizer by itself spells ordinary texts of all kinds as they are."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, size: int, stop_ids: Iterable[int]) -> None:
        """
        Args:
            size: width of the logits.
            stop_ids: every id that ends an answer; see ``stop_ids_of``.
        """
        self.vocabulary = vocabulary_of(tokenizer, size, stop_ids)
        self._backend = _plain_copy(tokenizer, self.vocabulary)
        self._bytes = dict(enumerate(self.vocabulary.tokens))
        self._single = {token: i for i, token in reversed(list(enumerate(self.vocabulary.tokens))) if len(token) == 1}
        self._longest = LongestMatch(self.vocabulary)
        self._faithful: dict[str, bool] = {}
        lossy = [probe for probe in _PROBES if self._direct(probe) is None]
        self.lossless = not lossy
        if lossy:
            log.warning("%s does not spell all text as it is, for instance %r", tokenizer.name_or_path, lossy[0])
        if lacking := [byte for byte in _WRITTEN if bytes([byte]) not in self._single]:
            # Alone it answers all the same, so that it is not refused.
            rule = "%s has no token for %d of the bytes of texts, %r the first; where other members write them it fails"
            log.warning(rule, tokenizer.name_or_path, len(lacking), bytes(lacking[:1]))

    def encode(self, text: bytes) -> list[int]:
        pieces = _BROKEN.split(text.decode("utf-8", "surrogateescape"))
        ids: list[int] = []
        for index, piece in enumerate(pieces):
            ids += self._bytewise(piece) if index % 2 else self._spelt(piece)
        return ids

    def _bytewise(self, piece: str) -> list[int]:
        broken = piece.encode("utf-8", "surrogateescape")
        try:
            return [self._single[bytes([byte])] for byte in broken]
        except KeyError as error:
            raise Unspellable(f"no token for some byte of {broken[:8]!r}") from error

    def _spelt(self, piece: str) -> list[int]:
        ids = self._direct(piece)
        if ids is not None:
            return ids
        runs = ("".join(run) for _, run in groupby(piece, self._is_faithful))
        return [i for run in runs for i in self._run(run)]

    def _run(self, run: str) -> list[int]:
        ids = self._direct(run)
        return self._longest.encode(run.encode()) if ids is None else ids

    def _is_faithful(self, character: str) -> bool:
        if character not in self._faithful:
            self._faithful[character] = self._direct(character) is not None
        return self._faithful[character]

    def _direct(self, text: str) -> list[int] | None:
        """The tokenizer's own spelling, if its bytes are the text's."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids if b"".join(self._bytes.get(i, b"") for i in ids) == text.encode() else None


def tokeniser_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> HuggingFaceTokeniser:
    """The tokeniser of a loaded model, with the width of its logits and all its stop ids."""
    width = model.get_output_embeddings().weight.shape[0]
    stops = stop_ids_of(tokenizer, model.config.get_text_config(), model.generation_config)
    return HuggingFaceTokeniser(tokenizer, width, stops)


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(i for i, token in added if token.special) | frozenset(tokenizer.all_special_ids)


def _table(tokenizer: PreTrainedTokenizerFast) -> dict[int, bytes]:
    """Bytes by id, special tokens included."""
    backend = tokenizer.backend_tokenizer
    added = {i: token.content.encode() for i, token in tokenizer.added_tokens_decoder.items()}
    contents = {i: content for content, i in backend.get_vocab(with_added_tokens=True).items() if i not in added}
    steps = _kinds(json.loads(backend.to_str())["decoder"])
    if "ByteLevel" in steps:
        return added | {i: _alphabetic(content) for i, content in contents.items()}
    fallback = {i: match for i, content in contents.items() if (match := _BYTE_TOKEN.fullmatch(content))}
    if "ByteFallback" not in steps:
        fallback = {}
    in_bytes = {i: bytes.fromhex(match[1]) for i, match in fallback.items()}
    return added | in_bytes | _decoded(backend, {i: c for i, c in contents.items() if i not in fallback})


def _kinds(part: Any) -> set[str]:
    """Types of a tokenizer's part and of the parts of a sequence."""
    if not part:
        return set()
    inner = part.get("decoders") or part.get("normalizers") or part.get("pretokenizers") or ()
    return {part["type"]}.union(*map(_kinds, inner))


def _alphabetic(content: str) -> bytes:
    if all(character in _BYTE_OF for character in content):
        return bytes(_BYTE_OF[character] for character in content)
    return content.encode()


def _decoded(backend: Tokenizer, contents: dict[int, str]) -> dict[int, bytes]:
    """What each token adds to a text when it stands between two others, as the tokenizer's decoder writes it."""
    words = (i for i, content in contents.items() if content.isascii() and content.isalnum())
    guard = next(words, next(iter(contents), 0))
    before = backend.decode([guard], skip_special_tokens=False)
    after = backend.decode([guard, guard], skip_special_tokens=False)[len(before) :]
    texts = backend.decode_batch([[guard, i, guard] for i in contents], skip_special_tokens=False)
    sandwiches = zip(contents.items(), texts, strict=True)
    return {i: _filling(text, before, after, content).encode() for (i, content), text in sandwiches}


def _filling(text: str, before: str, after: str, otherwise: str) -> str:
    whole = text.startswith(before) and text.endswith(after) and len(text) >= len(before) + len(after)
    return text[len(before) : len(text) - len(after)] if whole else otherwise


def _plain_copy(tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer without what changes text: see ``HuggingFaceTokeniser``."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    parts |= {"truncation": None, "padding": None, "post_processor": None}
    parts["normalizer"] = _harmless(parts["normalizer"])
    parts["pre_tokenizer"] = _without_prefix(parts["pre_tokenizer"])
    if parts["model"].get("dropout"):
        parts["model"]["dropout"] = None
    for added in parts["added_tokens"]:
        # Silent ids must not come out of text, whether or not the tokenizer's author flagged them.
        added["special"] = added["id"] >= vocabulary.size or not vocabulary.tokens[added["id"]]
    copy = Tokenizer.from_str(json.dumps(parts))
    copy.encode_special_tokens = True
    return copy


def _harmless(normaliser: Any) -> Any:
    if not normaliser or normaliser["type"] in _LOSSY or "Regex" in normaliser.get("pattern", {}):
        return None
    if normaliser["type"] != "Sequence":
        return normaliser
    kept = [step for step in map(_harmless, normaliser["normalizers"]) if step]
    return normaliser | {"normalizers": kept} if kept else None


def _without_prefix(splitter: Any) -> Any:
    if not splitter:
        return None
    changes = {"add_prefix_space": False, "prepend_scheme": "never"}
    changed = splitter | {key: value for key, value in changes.items() if key in splitter}
    if splitter["type"] == "Sequence":
        changed["pretokenizers"] = [_without_prefix(step) for step in splitter["pretokenizers"]]
    return changed
