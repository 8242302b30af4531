"""Answers bound by a JSON schema, regular expression or grammar, by llguidance's token masks."""

from __future__ import annotations

import json
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import EngineError, Request

_KEPT_GRAMMARS = 64


class GrammarCompiler:
    """Makes matchers for one vocabulary; the grammars used last stay compiled."""

    def __init__(self, tokenizer: Future[Any], vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._size = vocabulary_size
        self._compiled: OrderedDict[tuple[str, str, str], Any] = OrderedDict()

    def matcher(self, request: Request) -> Matcher | None:
        """A matcher for the request's constraint; None where it has none. Raises EngineError for a bad one."""
        key = (request.json_schema, request.regex, request.grammar)
        if not any(key):
            return None
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(*key)
            if len(self._compiled) > _KEPT_GRAMMARS:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return Matcher(compiled.deep_copy(), self._size)

    def _compile(self, json_schema: str, regex: str, grammar: str) -> Any:
        try:
            if json_schema:
                source = llguidance.LLMatcher.grammar_from_json_schema(
                    json.loads(json_schema), defaults={'whitespace_flexible': False})
            elif regex:
                source = llguidance.LLMatcher.grammar_from_regex(regex)
            else:
                source = llguidance.LLMatcher.grammar_from_lark(grammar)
        except (ValueError, RuntimeError) as error:
            raise _refusal(str(error)) from None
        matcher = llguidance.LLMatcher(self._tokenizer.result(), source)
        if matcher.is_error():
            raise _refusal(matcher.get_error())
        return matcher


def _refusal(cause: str) -> EngineError:
    """The library's first line says what; the others repeat the grammar."""
    line = next(iter(cause.strip().splitlines()), 'no reason given').rstrip('.:')
    return EngineError(f'The answer\'s schema or grammar cannot be used: {line}.')


class Matcher:
    """The state of one answer's grammar."""

    def __init__(self, matcher: Any, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._mask = llguidance.numpy.allocate_token_bitmask(1, vocabulary_size)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of forbidden tokens to -inf."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._mask, 0)
        llguidance.numpy.apply_token_bitmask_inplace(logits.reshape(1, -1), self._mask)

    def accept(self, token: int) -> None:
        """Advance by a drawn token; raises EngineError (3000) where it does not fit."""
        if not self._matcher.consume_token(token):
            raise EngineError(f'The grammar lost its way: {self._matcher.get_error()}', 3000)

    def forced(self, most: int) -> list[int]:
        """Advance by the next tokens that leave no choice, `most` of them, and return them."""
        tokens = list(self._matcher.compute_ff_tokens())[:most]
        if tokens and not self._matcher.consume_tokens(tokens):
            raise EngineError(f'The grammar lost its way: {self._matcher.get_error()}', 3000)
        return tokens

    @property
    def done(self) -> bool:
        """The answer is complete and nothing may follow."""
        return bool(self._matcher.is_stopped())
