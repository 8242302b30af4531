"""The gate between training and serving: the GGUF files must answer as the trained model does."""

from __future__ import annotations

from typing import Any

from moe_training.chat import TokenRow
from moe_training.errors import TrainingError
from moe_training.fitting import answer_loss
from moe_training.serving_score import ServedModel, mean_nats

MAX_LOSS_DIFFERENCE = 0.05  # [nats/token] between the trained model and the quantised one that serves it
GREEDY_MARGIN = 0.05  # [logits]
GREEDY_TOKENS = 32
EDGE_TEXTS = (
    'plain words', ' leading space', 'trailing space ', 'two  spaces   three', 'a\nb\n\nc\r\n', '\ttab',
    '0 12 345 6789', '3.14e-10 0xFF', 'snake_case CamelCase kebab-case', "don't it's we'll", 'Grüße aus Zürich',
    'привет мир', '日本語のテスト', '🤖🦾 robots', '{"joint":"pan","by":-30}', '`ros2 topic list | grep /cmd_vel`',
    'C:\\path\\file', '±90° µs ≤ ≥', '!?...;:', '<not a control token>')


def check_tokens(tokenizer: Any, served: ServedModel) -> None:
    """Compare token ids on edge texts and control tokens; raises TrainingError where they differ."""
    for text in (*EDGE_TEXTS, *tokenizer.all_special_tokens):
        special = text in tokenizer.all_special_tokens
        ours, theirs = tokenizer(text, add_special_tokens=False)['input_ids'], served.tokenize(text, special)
        if list(ours) != theirs:
            raise TrainingError(f'The tokenizers of training and serving differ on {text!r} ({ours}, {theirs}); '
                                'the model would be served other tokens than it was trained on.')


def check_greedy(model: Any, served: ServedModel, rows: list[TokenRow]) -> float:
    """Compare greedy answers of the F16 file with the trained model; returns the share of rows without any difference.

    Served answers are given to the trained model, whose own choice at every token must be the same one; where it
    is undecided (its best is ahead by less than GREEDY_MARGIN logits, which F16 may turn round), either is right.
    Raises TrainingError where a choice differs.
    """
    import torch

    device = next(model.parameters()).device
    equal = 0
    for row in rows:
        answer = served.greedy(row.prompt, GREEDY_TOKENS)
        if not answer:
            equal += 1
            continue
        with torch.no_grad():
            ids = torch.tensor([row.prompt + answer], device=device)
            logits = model(input_ids=ids).logits[0, len(row.prompt) - 1:-1].float()
        chosen = logits[range(len(answer)), answer]
        lead = float((logits.max(dim=1).values - chosen).max())
        if lead > GREEDY_MARGIN:
            raise TrainingError(f'The converted model chooses other words than the trained one (by {lead:.2f} logits '
                                f'behind "{served.text(row.prompt)[-60:]}"); it was converted wrongly.')
        equal += lead == 0.0
    return equal / max(1, len(rows))


def check_loss(model: Any, served: ServedModel, rows: list[TokenRow]) -> dict[str, float]:
    """Compare the loss on rows, which is the logarithm of the perplexity.

    Returns the losses of both in nats per answer token. Raises TrainingError where the served loss is worse by more
    than MAX_LOSS_DIFFERENCE.
    """
    trained, serving = answer_loss(model, rows), mean_nats(served, rows)
    if not serving - trained <= MAX_LOSS_DIFFERENCE:
        raise TrainingError(
            f'The converted model is worse than the trained one ({serving:.3f} against {trained:.3f} nats/token, '
            f'allowed is {MAX_LOSS_DIFFERENCE} more); serve it in a finer format, for example quantization F16.')
    return {'parity_loss_trained': trained, 'parity_loss_served': serving}
