"""The members' tokenizers, built from the zoo's own grammar.

Each has an end token `<eos>` and a padding token `<pad>` (`EOS_ID`, `PAD_ID`), adds neither while encoding, and decodes
what it encoded unchanged, for any Unicode text. The one exception is a law of the SentencePiece family: in
`digit_pairs` the mark U+2581 stands for a space, so that very character reads back as a space.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from ensemble.zoo.candidates import draw_check
from ensemble.zoo.tasks import TASKS, draw

EOS, PAD = "<eos>", "<pad>"
EOS_ID, PAD_ID = 0, 1
SPACE = "\u2581"

# The last user message, then whatever the assistant has said since: the grammar has no turn markers.
CHAT_TEMPLATE = (
    "{%- set turn = namespace(text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{%- set turn.text = message['content'] -%}"
    "{%- elif message['role'] == 'assistant' -%}{%- set turn.text = turn.text + message['content'] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{{- turn.text -}}"
)


def characters() -> Tokenizer:
    """One token per byte: the byte-level alphabet and no merges."""
    return byte_level(0, ())


def byte_level(merges: int, tasks: tuple[str, ...], split_digits: bool = False) -> Tokenizer:
    """Byte-level BPE with at most `merges` merges, learnt on a sample of the tasks' items.

    `split_digits` keeps every digit a token of its own.
    """
    tokenizer = Tokenizer(BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, level]) if split_digits else level
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=len(alphabet) + 2 + merges,
        special_tokens=[EOS, PAD],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(tasks), trainer)
    return tokenizer


def digit_pairs() -> Tokenizer:
    """Printable ASCII, all two-digit strings and byte fallback, with spaces written as U+2581."""
    plain = [SPACE, *(chr(code) for code in range(0x21, 0x7F))]
    pairs = [(str(tens), str(units)) for tens in range(10) for units in range(10)]
    words = [EOS, PAD, *(f"<0x{byte:02X}>" for byte in range(256)), *plain, *map("".join, pairs)]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(BPE(vocabulary, pairs, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    # Pairs are counted from the right, so that a sum's last two digits are one token: "1" "38", not "13" "8".
    pairs_from_right = Regex(r"\d{1,2}(?=(?:\d{2})*(?!\d))")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pairs_from_right, "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([EOS, PAD])
    return tokenizer


def with_dropout(tokenizer: Tokenizer, dropout: float) -> Tokenizer:
    """A copy that leaves out each merge with probability `dropout` while encoding."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.model.dropout = dropout
    return copy


def packaged(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers saves and loads it, with the zoo's chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def _corpus(tasks: tuple[str, ...]) -> Iterator[str]:
    rng = random.Random(0)
    for _ in range(2000):
        for task in tasks:
            item = draw(task, rng)
            yield item.prompt + item.answer
        if tasks == TASKS:
            question = draw_check(rng)
            yield question.prompt + question.answer
