"""Which number format should the shared base be served in? Score, speed and size of every candidate.

    ./moe exec python benchmarks/quantisation.py [--rows 60]

Score: share of held-out prompts of the built-in experts answered exactly right with their adapters on that base. Speed:
tokens/s of 8 streams together (64 tokens of prompt, 64 new), and of one. Wanted: a file that keeps 95 % of F16's score
at 1.4 times the speed of Q8_0. "Mixed" files name the type of a part of the tensors after the plus sign.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as llama
import numpy as np
import yaml
from measurement import Figure, report

from moe_experts.engines.engine import Engine, EngineSettings, Request, Result, Sampling
from moe_experts.engines.gguf_header import read_header
from moe_experts.engines.opening import open_engine
from moe_training.model_file import write_model
from moe_training.quantization import silence_log
from moe_training.serving_score import same
from moe_training.trainable_base import prepare_trainable_base

DATA = Path(__file__).parents[1] / 'data'
EXPERTS = {row['name']: row for row in yaml.safe_load((DATA / 'experts.yaml').read_text())['experts']
           if 'adapter' in row}
KEPT, FASTER = 0.95, 1.4
STREAMS, TOKENS = 8, 64


@dataclass(frozen=True)
class Candidate:
    """A file: type of its matrices, of the token embedding (which is the output too), and of those named by pattern."""

    name: str
    file_type: str
    embedding: str = ''
    overrides: tuple[tuple[str, str], ...] = ()


CANDIDATES = (
    Candidate('F16', 'F16'), Candidate('BF16', 'BF16'), Candidate('Q8_0', 'Q8_0'), Candidate('Q4_0', 'Q4_0'),
    Candidate('Q4_0+Q8_0 embedding', 'Q4_0', 'Q8_0'),
    Candidate('Q4_0 feed-forward+Q8_0', 'Q4_0', 'Q8_0', (('attn_', 'Q8_0'),)),
    Candidate('Q4_0 up and gate+Q8_0', 'Q4_0', 'Q8_0', (('attn_', 'Q8_0'), ('ffn_down', 'Q8_0'))),
    Candidate('Q4_1', 'Q4_1'), Candidate('Q5_0', 'Q5_0'), Candidate('BF16+Q8_0 embedding', 'BF16', 'Q8_0'),
    Candidate('Q8_0+BF16 embedding', 'Q8_0', 'BF16'))


def ggml_type(name: str) -> int:
    """ggml's number of a type."""
    return int(getattr(llama_cpp, f'GGML_TYPE_{name}'))


def write(candidate: Candidate, source: Path, target: Path) -> Path:
    """Quantise."""
    silence_log()
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama, f'LLAMA_FTYPE_MOSTLY_{candidate.file_type}')
    parameters.nthread = os.cpu_count() or 1
    parameters.pure = True
    if candidate.embedding:
        parameters.token_embedding_type = ggml_type(candidate.embedding)
    overrides = (llama.llama_model_tensor_override * (len(candidate.overrides) + 1))()
    for entry, (pattern, kind) in zip(overrides, candidate.overrides, strict=False):
        entry.pattern, entry.type = pattern.encode(), ggml_type(kind)
    if candidate.overrides:
        parameters.tt_overrides = overrides
    if llama.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(parameters)):
        raise SystemExit(f'{candidate.name} cannot be written.')
    return target


def results(engine: Engine, requests: list[Request]) -> dict[str, Result]:
    """Ask all at once."""
    found: dict[str, Result] = {}
    for request in requests:
        engine.submit(request)
    while engine.busy():
        for item in engine.step():
            if isinstance(item, Result):
                found[item.id] = item
    return found


def exact(engine: Engine, rows: int) -> float:
    """Share of held-out prompts answered right, mean over the experts."""
    shares = []
    for name, row in EXPERTS.items():
        pairs = [json.loads(line) for line in (DATA / name / 'heldout.jsonl').read_text().splitlines()][:rows]
        schema = (DATA / row['output_schema']).read_text() if 'output_schema' in row else ''
        found = results(engine, [Request(
            str(index), (('system', row['system_prompt']), ('user', pair['prompt'])), adapter=name, max_tokens=96,
            sampling=Sampling(temp=0.0), json_schema=schema) for index, pair in enumerate(pairs)])
        shares.append(np.mean([same(found[str(index)].text, pair['completion']) for index, pair in enumerate(pairs)]))
    return float(np.mean(shares))


def speed(engine: Engine, streams: int, seed: int) -> float:
    """Tokens/s of so many streams together, prompts included."""
    text = 'The robot looks at the door and says what it sees there. ' * 5
    requests = [Request(str(index), (('user', f'{seed}.{index} {text}'),), max_tokens=TOKENS,
                        sampling=Sampling(temp=0.0, ignore_eos=True)) for index in range(streams)]
    begin = time.monotonic()
    found = results(engine, requests)
    return sum(len(one.tokens) for one in found.values()) / (time.monotonic() - begin)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description='Number formats of the shared base.')
    parser.add_argument('--rows', type=int, default=60, help='held-out prompts of each expert')
    parser.add_argument('--repeats', type=int, default=5)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix='moe-quantisation-'))
    engines: dict[str, Engine] = {}
    detail: dict[str, dict[str, Any]] = {}
    try:
        source = write_model(prepare_trainable_base(), folder / 'source.gguf', 'base')
        settings = EngineSettings(threads=os.cpu_count() or 1, queue_limit=1000, use_kv_cache=False)
        for index, candidate in enumerate(CANDIDATES):
            path = write(candidate, source, folder / f'{index}.gguf')
            engine = engines[candidate.name] = open_engine(path, settings)
            for name, row in EXPERTS.items():
                engine.load_adapter(name, DATA / row['adapter'], 1.0)
            detail[candidate.name] = {'bytes': path.stat().st_size, 'types': read_header(path).quantization,
                                      'exact': exact(engine, arguments.rows), 'streams': [], 'single': []}
            print(candidate.name, detail[candidate.name], flush=True)
        for repeat in range(arguments.repeats):  # turn by turn: the machine's mood is shared
            for name, engine in engines.items():
                detail[name]['streams'].append(speed(engine, STREAMS, repeat))
                detail[name]['single'].append(speed(engine, 1, repeat))
    finally:
        for engine in engines.values():
            engine.close()
        shutil.rmtree(folder, ignore_errors=True)
    report('quantisation', figures(detail), detail)


def figures(detail: dict[str, dict[str, Any]]) -> list[Figure]:
    """A row for each, against F16's score and Q8_0's speed."""
    found = []
    for name, row in detail.items():
        kept = row['exact'] / detail['F16']['exact'] if detail['F16']['exact'] else 0.0
        faster = float(np.median(np.array(row['streams']) / np.array(detail['Q8_0']['streams'])))
        found += [Figure(f'{name}: {row["bytes"] / 1e6:.0f} MB, share of F16\'s score', kept, '', f'>= {KEPT:g}',
                         kept >= KEPT),
                  Figure(f'  {STREAMS} streams, times Q8_0', faster, 'x', f'>= {FASTER:g}', faster >= FASTER),
                  Figure('  tokens/s together', float(np.median(row['streams'])), 'tok/s'),
                  Figure('  tokens/s of one', float(np.median(row['single'])), 'tok/s')]
    return found


if __name__ == '__main__':
    main()
