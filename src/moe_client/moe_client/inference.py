"""Questions and answers, by way of the router."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from moe_client.transport import Event, Transport, Values
from moe_client.types import Chunk, Generation

NOTHING_YET = Chunk('', '', 0, 0.0, False)


class Inference:
    """Generations and embeddings."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def generate_stream(
            self, prompt: str, *, expert: str = '', session: str = '', temperature: float | None = None,
            top_p: float | None = None, top_k: int | None = None, max_tokens: int = 0, stop: str | Sequence[str] = (),
            json_schema: str | Mapping[str, Any] = '', seed: int | None = None, timeout: float = 120.0,
            **more: Any) -> Generator[Chunk | Generation, None, None]:
        """Ask and stream: yields chunks and at the end the whole Generation; closing it cancels the request.

        None and 0 max_tokens mean the expert's own value; timeout is in seconds. `more` is other fields of
        GenerateResponse and of SamplingConfig (min_p, repeat_penalty, grammar, regex, system_prompt, ground, ...).
        """
        values = _values(prompt, expert=expert, session=session, temperature=temperature, top_p=top_p, top_k=top_k,
                         max_tokens=max_tokens, stop=stop, json_schema=json_schema, seed=seed, **more)
        answer = _Answer()
        with contextlib.closing(self._transport.stream(
                'inference.generate', values, timeout)) as events:
            for event in events:
                yield from answer.read(event)

    async def agenerate_stream(self, prompt: str, *, timeout: float = 120.0,
                               **options: Any) -> AsyncGenerator[Chunk | Generation, None]:
        """As generate_stream; cancelling the task that reads it cancels the request."""
        answer = _Answer()
        async with contextlib.aclosing(self._transport.astream(
                'inference.generate', _values(prompt, **options), timeout)) as events:
            async for event in events:
                for item in answer.read(event):
                    yield item

    def chat_stream(self, messages: Sequence[Mapping[str, str]], *, timeout: float = 120.0,
                    **options: Any) -> Generator[Chunk | Generation, None, None]:
        """Go on with a conversation of {"role", "content"}; otherwise as generate_stream."""
        values = _values('', messages=[dict(message) for message in messages], **options)
        del values['prompt']
        answer = _Answer()
        with contextlib.closing(self._transport.stream('inference.chat', values, timeout)) as events:
            for event in events:
                yield from answer.read(event)

    def generate(self, prompt: str, **options: Any) -> Generation:
        """Ask and wait for the whole answer; options as generate_stream."""
        *_, last = self.generate_stream(prompt, **options)
        assert isinstance(last, Generation)  # the stream ends with it or raises
        return last

    async def generate_async(self, prompt: str, **options: Any) -> Generation:
        """As generate(); cancelling the task cancels the request."""
        async with contextlib.aclosing(self.agenerate_stream(prompt, **options)) as items:
            async for item in items:
                last = item
        assert isinstance(last, Generation)  # the stream ends with it or raises
        return last

    def embed(self, text: str, expert: str = '') -> list[float]:
        """A text as a vector of unit length."""
        vector: list[float] = self._transport.call('inference.embed', {'prompt': text, 'expert': expert})['embeddings']
        return vector

    def feedback(self, request_id: str, score: float, comment: str = '') -> None:
        """Judge an answer, -1 (bad) .. 1 (good)."""
        self._transport.call('feedback.give', {'request_id': request_id, 'score': score, 'comment': comment})

    def clear_cache(self, expert: str = '') -> int:
        """Forget cached answers and prefixes; returns how many."""
        return int(self._transport.call('experts.clear_cache', {'expert': expert})['entries'])

    def serving(self) -> Values:
        """What the expert node has loaded, its queue and its speed: a ServingStatus."""
        return self._transport.call('experts.serving', {})


class _Answer:
    """Turns the events of a generation into chunks, none of them missing."""

    def __init__(self) -> None:
        self._streamed, self._last = '', NOTHING_YET

    def read(self, event: Event) -> Iterator[Chunk | Generation]:
        if event.kind != 'result':
            self._last = Chunk.of(event.data)
            self._streamed += self._last.text
            yield self._last
            return
        answer = Generation.of(event.data)
        # the result comes on another channel and may overtake the end of the stream
        if rest := answer.text.removeprefix(self._streamed):
            yield replace(self._last, text=rest, expert=answer.expert, expert_version=answer.expert_version)
        yield answer


def _values(prompt: str, **options: Any) -> Values:
    """Options as they were given, without those that change nothing; -1 is the interface's own "the expert's"."""
    given = {key: value for key, value in options.items()
             if value is not None and value != '' and value != () and not (key in _OWN and value == -1)}
    if isinstance(given.get('stop'), str):
        given['stop'] = [given['stop']]
    elif 'stop' in given:
        given['stop'] = list(given['stop'])
    return {'prompt': prompt, 'request_id': uuid.uuid4().hex[:16], **given}


_OWN = ('temperature', 'top_p', 'top_k', 'seed')
