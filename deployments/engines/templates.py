"""From requests to prompt ids: chat templates around conversations, raw prompts as they are.

Knows Hugging Face tokenizers and Jinja's errors. Knows nothing of answers: the text that already stands in the
assistant's turn (``Request.partial``) is no part of a prompt; engines bring it in as the session's continuation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from jinja2 import TemplateError, TemplateSyntaxError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from ensemble.errors import BadRequest, ConfigurationError
from ensemble.request import Message, Request
from ensemble.vocabulary import Tokeniser

DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% else %}{{ message['role'] | capitalize + ': ' + message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For models without a chat template: the system text, then ``User: …`` and ``Assistant: …`` turns with an empty line
after each, then ``Assistant:``. Such a model may go on with the user's next turn, which ``stop=["\\nUser:"]`` ends."""

_MASKS = 0xF0000
"""First of 65,000 private characters; those that occur in no message stand in for special tokens typed by users."""


class Prompts:
    """A model's prompts.

    What a special token of the model looks like can be typed by anyone, so in messages it is plain text: nobody
    forges a turn. In the chat template and in raw prompts special tokens are read.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokeniser: Tokeniser) -> None:
        """
        Args:
            tokenizer: the model's own, with its chat template.
            tokeniser: spells special tokens that stand in messages.

        Raises:
            ConfigurationError: the chat template is none.
        """
        self._tokenizer = tokenizer
        self._tokeniser = tokeniser
        self._backend = _untruncated(tokenizer)
        own = template_of(tokenizer)
        self._template = own or DEFAULT_TEMPLATE
        _require_readable(tokenizer, self._template)
        self._begins = own is None
        """Whether prompts begin with the beginning-of-text token, which a model's own template writes itself."""
        self._beginning = _beginning(self._backend)
        self._special = special_tokens(tokenizer)

    def __call__(self, request: Request) -> list[int]:
        """Prompt ids of a request: its raw prompt, or its conversation."""
        return self.chat(request.messages) if request.prompt is None else self.raw(request.prompt)

    def raw(self, text: str) -> list[int]:
        """Ids of a raw prompt, behind the beginning-of-text token where the tokenizer normally puts one.

        No second one is added to a text that begins with it, and no end token is added. The empty prompt is the
        beginning-of-text token, or the end token of a model that has no other.

        Raises:
            BadRequest: the prompt is empty and the model has neither token.
        """
        ids = self._read(text)
        begun = ids[: len(self._beginning)] == self._beginning
        return self._or_beginning(ids if begun else [*self._beginning, *ids])

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation in the model's chat template, up to where the assistant's answer begins.

        A template that refuses system messages gets their text at the head of the first user message, followed by
        an empty line. A model without template gets ``DEFAULT_TEMPLATE``.

        Raises:
            BadRequest: the template refuses the conversation; the message is the template's own.
        """
        masks = self._masks("".join(message.content for message in messages))
        text = self._rendered([replace(m, content=_masked(m.content, masks)) for m in messages])
        if self._begins:
            return [*self._beginning, *self._unmasked(text, masks)]
        return self._or_beginning(self._unmasked(text, masks))

    def _read(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def _or_beginning(self, ids: list[int]) -> list[int]:
        first = self._tokenizer.bos_token_id
        first = self._tokenizer.eos_token_id if first is None else first
        if not ids and first is None:
            raise BadRequest("the prompt is empty, and this model has no token to begin a text with", param="prompt")
        return ids or [first]

    def _masks(self, text: str) -> dict[str, str]:
        present = [token for token in self._special if token in text]
        free = (chr(code) for code in range(_MASKS, _MASKS + 65_000) if chr(code) not in text)
        return dict(zip(present, free, strict=False))

    def _unmasked(self, text: str, masks: dict[str, str]) -> list[int]:
        if not masks:
            return self._read(text)
        tokens = {mask: token for token, mask in masks.items()}
        pieces = re.split(f"([{''.join(tokens)}])", text)
        spelt = (self._tokeniser.encode(tokens[p].encode()) if p in tokens else self._read(p) for p in pieces if p)
        return [i for ids in spelt for i in ids]

    def _rendered(self, messages: Sequence[Message]) -> str:
        try:
            return render(self._tokenizer, messages, self._template)
        except BadRequest:
            roles = {message.role for message in messages}
            if not {"system", "user"} <= roles:
                raise
        return render(self._tokenizer, _folded(messages), self._template)


def render(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], template: str, *, answer_next: bool = True
) -> str:
    """The conversation as the template writes it.

    Args:
        answer_next: end with the beginning of an assistant's turn.

    Raises:
        BadRequest: the template refuses the conversation.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=answer_next
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise BadRequest(f"the model's chat template refuses these messages: {error}", param="messages") from error
    return str(text)


def _require_readable(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    """Refuse a template that no conversation could be written in; what it makes of a given one, it says itself."""
    try:
        render(tokenizer, [Message("user", "Hello")], template)
    except BadRequest as error:
        if isinstance(wrong := error.__cause__, TemplateSyntaxError):
            rule = f"the chat template cannot be read, line {wrong.lineno}: {wrong.message}; set chat_template"
            raise ConfigurationError(rule, param="chat_template") from error


def template_of(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The tokenizer's chat template; of several, which some models have for tools and documents, the plain one.

    Raises:
        ConfigurationError: there are several, and none is called ``default``.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        if "default" not in template:
            names = ", ".join(sorted(template)) or "none"
            raise ConfigurationError(
                f"the tokenizer's chat templates are {names}, and none is called default; set chat_template"
            )
        template = template["default"]
    return str(template) if template else None


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Every special token's text, longest first."""
    added = tokenizer.added_tokens_decoder.values()
    texts = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
    return tuple(sorted(texts, key=lambda text: (-len(text), text)))


def end_of_turn(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The token that the chat template writes after an assistant's turn; ``None`` where there is none.

    Found by looking: the template is asked to write a finished turn.
    """
    if (template := template_of(tokenizer)) is None:
        return None
    mark = "Understood"
    try:
        turns = (Message("user", "Hello"), Message("assistant", mark))
        text = render(tokenizer, turns, template, answer_next=False)
    except BadRequest:
        return None
    after = text.rpartition(mark)[2].lstrip()
    ends = ((i, token.content) for i, token in tokenizer.added_tokens_decoder.items())
    found = [(len(content), i) for i, content in ends if after.startswith(content)]
    return max(found)[1] if found else None


def _untruncated(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A private copy: the shared one changes its settings with every call, and must not be used by two threads."""
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _beginning(backend: Tokenizer) -> list[int]:
    """The ids that the tokenizer puts before a text by itself."""
    whole = list(backend.encode("a").ids)
    bare = list(backend.encode("a", add_special_tokens=False).ids)
    starts = range(len(whole) - len(bare) + 1)
    return next((whole[:i] for i in starts if bare and whole[i : i + len(bare)] == bare), [])


def _masked(text: str, masks: dict[str, str]) -> str:
    for token, mask in masks.items():
        text = text.replace(token, mask)
    return text


def _folded(messages: Sequence[Message]) -> list[Message]:
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    turns = [message for message in messages if message.role != "system"]
    first = next(i for i, message in enumerate(turns) if message.role == "user")
    turns[first] = Message("user", f"{system}\n\n{turns[first].content}")
    return turns
