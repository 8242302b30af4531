"""Remakes the built-in adapters of data/ without a graph: `python -m moe_training.build_experts DATA [NAME ...]`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from moe_training.adapter_file import write_adapter
from moe_training.atomic_files import atomic_path, sha256_of
from moe_training.chat import tokenize
from moe_training.dataset import read_dataset
from moe_training.errors import TrainingError
from moe_training.lora import Progress, Settings, fit
from moe_training.paths import served_base
from moe_training.serving_score import ServedModel, score
from moe_training.trainable_base import prepare_trainable_base

MAX_SEQ_LEN = 256


def build(data: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Train, export and score one built-in expert; returns its entry of the manifest."""
    from transformers import AutoTokenizer

    base = prepare_trainable_base()
    tokenizer = AutoTokenizer.from_pretrained(base)
    dataset = read_dataset(data / row['samples']).require_valid()
    settings = Settings(**row.get('training', {}))
    name = row['name']

    def tell(progress: Progress) -> None:
        if progress.step % 20 == 0 or progress.step == progress.total_steps:
            print(f'{name}: step {progress.step}/{progress.total_steps}, loss {progress.loss:.3f}, '
                  f'{progress.tokens_per_second:.0f} tokens/s, {progress.eta_s:.0f} s to go', flush=True)

    model = fit(base, tokenize(dataset.examples, tokenizer, row['system_prompt'], MAX_SEQ_LEN), settings, tell)
    path = write_adapter(model, data / row['adapter'], f'{name} on {base.name}')
    heldout = read_dataset((data / row['samples']).with_name('heldout.jsonl')).require_valid().examples
    served = ServedModel(served_base(), path)
    found = score(served, tokenize(heldout, tokenizer, row['system_prompt'], MAX_SEQ_LEN),
                  [example.completion for example in heldout], [example.prompt for example in heldout])
    served.close()
    for prompt, answer in found.samples[::max(1, found.rows // 5)]:
        print(f'  {prompt} -> {answer}')
    print(f'{name}: held-out exact {found.exact:.3f}, F1 {found.f1:.3f}', flush=True)
    return {'sha256': sha256_of(path), 'size_bytes': path.stat().st_size, 'settings': asdict(settings),
            'dataset_sha256': dataset.digest, 'base_sha256': sha256_of(served_base()),
            'metrics': {'heldout_exact': round(found.exact, 4), 'heldout_f1': round(found.f1, 4),
                        'heldout_rows': found.rows}}


def main() -> int:
    """Build the named experts, or all that have an adapter, and write the manifest."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('data', type=Path, help='folder with experts.yaml')
    parser.add_argument('names', nargs='*')
    options = parser.parse_args()
    rows = {row['name']: row for row in yaml.safe_load((options.data / 'experts.yaml').read_text())['experts']
            if 'adapter' in row}
    manifest = options.data / 'adapters' / 'manifest.json'
    manifest.parent.mkdir(exist_ok=True)
    try:
        for name in options.names or rows:
            if name not in rows:
                raise TrainingError(f'{name} is not built in; there are {", ".join(rows)}.')
            entry = build(options.data, rows[name])
            content: dict[str, Any] = json.loads(manifest.read_text()) if manifest.is_file() else {
                'command': 'python -m moe_training.build_experts data', 'adapters': {}}
            content['adapters'][name] = entry
            with atomic_path(manifest) as temporary:
                temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + '\n')
    except TrainingError as error:
        print(f'build_experts: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
