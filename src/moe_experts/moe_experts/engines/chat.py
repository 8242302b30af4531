"""The chat template of a model: conversations as tokens."""

from __future__ import annotations

import re
from collections.abc import Callable

import jinja2
import jinja2.sandbox

from moe_experts.engines.engine import EngineError, Messages

_CHATML = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
           "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
_MARK = re.compile('\x02(\\d+)\x03')


class ChatTemplate:
    """Renders a conversation with marks for the contents, so that control tokens in a message stay text.

    Args:
        source: Jinja template; '' = ChatML.
        names: further variables of the template, such as bos_token.
        tokenize: (text, special) to tokens.

    Raises EngineError (1001) for a template that cannot be read.
    """

    def __init__(self, source: str, names: dict[str, str], tokenize: Callable[[str, bool], list[int]]) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals['raise_exception'] = _raise
        try:
            self._template = environment.from_string(source or _CHATML)
        except jinja2.TemplateError as error:
            raise EngineError(f'The chat template of the model cannot be read: {error}', 1001) from None
        self._names, self._tokenize = names, tokenize
        self._fixed: dict[str, list[int]] = {}

    def tokens(self, messages: Messages) -> list[int]:
        """The prompt up to the answer; raises EngineError (3004) for messages that the template has no place for."""
        try:
            rendered = self._template.render(
                **self._names, add_generation_prompt=True,
                messages=[{'role': role, 'content': f'\x02{index}\x03'} for index, (role, _) in enumerate(messages)])
        except jinja2.TemplateError as error:
            raise EngineError(f'The chat template of the model refuses the messages: {error}') from None
        parts = _MARK.split(rendered)
        missing = set(range(len(messages))) - set(map(int, parts[1::2]))
        if missing:
            role = messages[min(missing)][0]
            raise EngineError(f'The chat template of the model has no place for message {min(missing)} ({role}).')
        tokens = []
        for index, part in enumerate(parts):
            tokens += self._tokenize(messages[int(part)][1], False) if index % 2 else self._control(part)
        return tokens

    def _control(self, text: str) -> list[int]:
        """Tokens of what the template itself says; there are only a few such texts."""
        found = self._fixed.get(text)
        if found is None:
            found = self._tokenize(text, True)
            if len(self._fixed) < 64:
                self._fixed[text] = found
        return found


def _raise(message: str) -> None:
    """Templates call this for a conversation that they cannot render."""
    raise jinja2.TemplateError(message)
