"""The gate between training and serving: the GGUF files must answer as the trained model does."""

from __future__ import annotations

from typing import Any

from moe_training.chat import TokenRow
from moe_training.errors import TrainingError
from moe_training.lora import answer_loss
from moe_training.serving_score import ServedModel

MAX_LOSS_DIFFERENCE = 0.05  # [nats/token] between the trained model and the quantised one that serves it
EDGE_TEXTS = (
    'plain words', ' leading space', 'trailing space ', 'two  spaces   three', 'a\nb\n\nc\r\n', '\ttab',
    '0 12 345 6789', '3.14e-10 0xFF', 'snake_case CamelCase kebab-case', "don't it's we'll", 'Grüße aus Zürich',
    'привет мир', '日本語のテスト', '🤖🦾 robots', '{"joint":"pan","by":-30}', '`ros2 topic list | grep /cmd_vel`',
    'C:\\path\\file', '±90° µs ≤ ≥', '!?...;:', '<not a control token>')


def check_parity(model: Any, tokenizer: Any, served: ServedModel, rows: list[TokenRow]) -> dict[str, float]:
    """Compare token ids on edge texts and the loss on rows.

    Returns the losses of both in nats per answer token. Raises TrainingError where ids differ or the served loss is
    worse by more than MAX_LOSS_DIFFERENCE.
    """
    for text in EDGE_TEXTS:
        ours, theirs = tokenizer(text, add_special_tokens=False)['input_ids'], served.tokenize(text)
        if list(ours) != theirs:
            raise TrainingError(f'The tokenizers of training and serving differ on {text!r} ({ours}, {theirs}); '
                                'the adapter would be served other tokens than it was trained on.')
    trained = answer_loss(model, rows)
    serving = sum(served.answer_nats(row) for row in rows) / sum(len(row.answer) for row in rows)
    if not serving - trained <= MAX_LOSS_DIFFERENCE:
        raise TrainingError(
            f'The converted adapter is worse than the trained one ({serving:.3f} against {trained:.3f} nats/token, '
            f'allowed is {MAX_LOSS_DIFFERENCE} more); serve it on a finer base, for example quantization F16.')
    return {'parity_loss_trained': trained, 'parity_loss_served': serving}
