"""Text of a growing answer: UTF-8 never cut between tokens, stop strings found across token borders."""

from __future__ import annotations

import codecs


class AnswerText:
    """Collects the bytes of tokens and releases what may be shown.

    Text that could be the beginning of a stop string is held back until it is decided.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
        self._held = ''
        self.text = ''
        self.stopped = False

    def add(self, data: bytes) -> str:
        """Add a token's bytes; returns the text that is certain now."""
        self._held += self._decoder.decode(data)
        found = [at for at in (self._held.find(text) for text in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._undecided())

    def finish(self) -> str:
        """Release what was held back; the end of the answer is decided."""
        if self.stopped:
            return ''
        self._held += self._decoder.decode(b'', final=True)
        return self._release(len(self._held))

    def _undecided(self) -> int:
        """Length of the longest tail that begins a stop string."""
        return max((length for text in self._stop for length in range(1, len(text))
                    if self._held.endswith(text[:length])), default=0)

    def _release(self, length: int) -> str:
        out, self._held = self._held[:length], self._held[length:]
        self.text += out
        return out
