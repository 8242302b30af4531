"""Answers bound by a JSON schema, regular expression or grammar, by llguidance's token masks."""

from __future__ import annotations

import json
from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import EngineError, Request


class GrammarCompiler:
    """Makes matchers for one vocabulary; compiled grammars are kept."""

    def __init__(self, tokenizer: Any, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._size = vocabulary_size
        self._compiled: dict[tuple[str, str, str], str] = {}

    def matcher(self, request: Request) -> Matcher | None:
        """A matcher for the request's constraint; None where it has none. Raises EngineError for a bad one."""
        key = (request.json_schema, request.regex, request.grammar)
        if not any(key):
            return None
        grammar = self._compiled.get(key)
        if grammar is None:
            try:
                if request.json_schema:
                    schema = json.loads(request.json_schema)
                    grammar = llguidance.LLMatcher.grammar_from_json_schema(
                        schema, defaults={'whitespace_flexible': False})
                elif request.regex:
                    grammar = llguidance.LLMatcher.grammar_from_regex(request.regex)
                else:
                    grammar = llguidance.LLMatcher.grammar_from_lark(request.grammar)
            except (ValueError, RuntimeError) as error:
                raise EngineError(f'The answer\'s schema or grammar cannot be used: {error}') from None
            self._compiled[key] = grammar
        matcher = llguidance.LLMatcher(self._tokenizer, grammar)
        if matcher.is_error():
            raise EngineError(f'The answer\'s schema or grammar cannot be used: {matcher.get_error()}')
        return Matcher(matcher, self._size)


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

    def forced(self) -> list[int]:
        """Advance by the tokens that leave no choice, and return them."""
        tokens = list(self._matcher.compute_ff_tokens())
        if tokens and not self._matcher.consume_tokens(tokens):
            raise EngineError(f'The grammar lost its way: {self._matcher.get_error()}', 3000)
        return tokens

    @property
    def done(self) -> bool:
        """The answer is complete and nothing may follow."""
        return bool(self._matcher.is_stopped())
