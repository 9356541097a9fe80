"""From bytes to text that may be shown: whole characters only, nothing of a stop string."""

from __future__ import annotations

import codecs


class TextStream:
    """Turns committed bytes into text deltas.

    Holds back incomplete UTF-8 characters, and text that may turn out to be the beginning of a stop string.

    >>> stream = TextStream(stop=("END",))
    >>> stream.push(b"a E"), stream.push(b"N"), stream.push(b"D b"), stream.stopped
    ('a ', '', '', True)
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        """A stop string was met; everything from it on is dropped."""

    def push(self, data: bytes) -> str:
        """Text that is now certain."""
        return self._release(self._held + self._decoder.decode(data))

    def flush(self) -> str:
        """What was held back, at the end of the answer; broken characters become U+FFFD."""
        text = self._release(self._held + self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + held

    def _release(self, text: str) -> str:
        if self.stopped:
            self._held = ""
            return ""
        cut = min((at for at in (text.find(s) for s in self._stop) if at >= 0), default=-1)
        if cut >= 0:
            self.stopped, self._held = True, ""
            return text[:cut]
        held = max((_overlap(text, s) for s in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
