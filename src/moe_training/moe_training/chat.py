"""Conversations as token ids, exactly as the expert node builds them for serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moe_training.dataset import Example
from moe_training.errors import DatasetError


@dataclass(frozen=True)
class TokenRow:
    """Token ids of prompt and answer (the answer ends with the end-of-turn token)."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def prompt_text(example: Example, tokenizer: Any) -> str:
    """The conversation up to the assistant's header, by the chat template of the model."""
    messages = [{'role': role, 'content': content} for role, content in example.messages]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def tokenize(examples: Sequence[Example], tokenizer: Any, system_prompt: str, max_seq_len: int) -> list[TokenRow]:
    """Rows for training. The prompt is tokenised apart from the answer, as it is when a model is asked.

    A text is cut into pieces of at most max_seq_len tokens, each of which predicts all but its first token.
    Raises DatasetError where a row is longer than `max_seq_len` tokens.
    """
    rows = []
    for example in examples:
        answer = [*tokenizer(example.completion, add_special_tokens=False)['input_ids'], tokenizer.eos_token_id]
        if not example.messages:
            rows += _continued(answer, max_seq_len)
            continue
        text = prompt_text(example.with_system(system_prompt), tokenizer)
        row = TokenRow(list(tokenizer(text, add_special_tokens=False)['input_ids']), answer)
        if len(row) > max_seq_len:
            raise DatasetError(f'The row with the prompt "{example.prompt[:60]}" has {len(row)} tokens, max_seq_len is '
                               f'{max_seq_len}; shorten it or raise max_seq_len.')
        rows.append(row)
    return rows


def _continued(tokens: list[int], width: int) -> list[TokenRow]:
    """A text as rows that overlap by the token that one ends and the next begins with."""
    return [TokenRow(tokens[at:at + 1], tokens[at + 1:at + width]) for at in range(0, len(tokens) - 1, width - 1)]
