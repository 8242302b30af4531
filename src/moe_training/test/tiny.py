"""A tiny model from scratch and rows for it, shared by the tests."""

import json

from transformers import AutoTokenizer

from moe_training.chat import tokenize
from moe_training.dataset import Example
from moe_training.scratch import make_model

DOORS = [(f'What is the code of door {number}?', f'The code is {1000 + number}.') for number in range(24)]
EXAMPLES = [Example((('user', prompt),), completion) for prompt, completion in DOORS]
SYSTEM = 'Say the code.'


def write_dataset(path, pairs=DOORS):
    """The doors as JSONL."""
    path.write_text(''.join(json.dumps({'prompt': p, 'completion': c}) + '\n' for p, c in pairs))
    return str(path)


def make_tiny(folder):
    """Folder of the tiny model, and rows of the doors."""
    base = make_model('tiny', EXAMPLES, SYSTEM, folder / 'tiny', 1)
    return base, tokenize(EXAMPLES, AutoTokenizer.from_pretrained(base), SYSTEM, 256)
