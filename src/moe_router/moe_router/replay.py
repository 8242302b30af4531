"""Runs a log of decisions against a version of the head: `ros2 run moe_router replay_routes LOG.jsonl [HEAD.npz]`.

Each line of the log ("-" = standard input) is an object with `prompt` and perhaps `request_id`, `choice` (what was
chosen then) and `corrected` (what a person said). The same head and log give the same output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moe_router.classifier import NONE, Head
from moe_router.encoder import Encoder
from moe_router.policy import Limits
from moe_router.prepare_encoder import models_folder
from moe_router.router import Router, blank


def replay(router: Router, head: Head, lines: Iterable[str], limits: Limits) -> Iterator[dict[str, Any]]:
    """Decide on every prompt of a log again; raises ValueError with the line that is no record."""
    available = {name for name in head.experts if name not in (NONE, limits.fallback)}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            prompt = record['prompt']
            if not isinstance(prompt, str):
                raise TypeError
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'Line {number} of the log is no JSON object with a prompt; '
                             'set keep_prompts on the router to have prompts in its log.') from error
        if blank(prompt):
            continue
        decision = router.route(prompt, available, limits, head=head).decision
        before = record.get('choice') or (record.get('decision') or {}).get('choice', '')
        yield {'request_id': record.get('request_id', ''), 'prompt': prompt, 'before': before,
               'choice': decision.choice, 'confidence': round(decision.confidence, 6), 'stage': decision.stage,
               'changed': bool(before) and before != decision.choice, 'corrected': record.get('corrected', '')}


def main() -> int:
    """Print every decision as a JSON line and a summary at the end; 1 with one sentence where that fails."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('log', type=Path)
    parser.add_argument('head', type=Path, nargs='?', default=models_folder().parent / 'router' / 'head.npz')
    parser.add_argument('--threshold', type=float, default=0.5)
    parser.add_argument('--margin', type=float, default=0.0)
    parser.add_argument('--fallback', default='general')
    options = parser.parse_args()
    try:
        with (contextlib.nullcontext(sys.stdin) if options.log == Path('-') else
              options.log.open(encoding='utf-8', errors='replace')) as log:
            rows = list(replay(Router(Encoder(models_folder())), Head.load(options.head), log,
                               Limits(options.fallback, options.threshold, options.margin)))
    except (OSError, ValueError, KeyError) as error:
        print(f'replay_routes: {error}', file=sys.stderr)
        return 1
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))
    labelled = [row for row in rows if row['corrected']]
    right = sum(row['choice'] == row['corrected'] for row in labelled)
    print(f'{len(rows)} prompts, {sum(row["changed"] for row in rows)} decided otherwise'
          + (f', {right} of {len(labelled)} as a person said' if labelled else ''), file=sys.stderr)
    return 0


if __name__ == '__main__':
    sys.exit(main())
