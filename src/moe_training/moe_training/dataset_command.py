"""Datasets outside the node's process: `python -m moe_training.dataset_command KIND ARGUMENTS`.

KIND is "validate", "analyse" or "prepare", ARGUMENTS a JSON object of the function's. Prints one JSON object: "result",
or "error" and "code".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moe_training.errors import TrainingError, error_of

NICENESS = 5


def _validate(path: str) -> dict[str, Any]:
    from moe_training.dataset import validate

    return asdict(validate(Path(path)))


def _analyse(path: str, compared_with: str, plot: str) -> dict[str, Any]:
    from moe_training.dataset_analysis import analyse

    return analyse(Path(path), Path(compared_with) if compared_with else None, Path(plot) if plot else None)


def _prepare(domain: str, paths: list[str], output: str, holdout: float) -> dict[str, Any]:
    from moe_training.dataset_preparation import prepare

    return asdict(prepare(domain, list(map(Path, paths)), Path(output) if output else None, holdout))


_KINDS: dict[str, Callable[..., dict[str, Any]]] = {'validate': _validate, 'analyse': _analyse, 'prepare': _prepare}


def ask(kind: str, **arguments: Any) -> dict[str, Any]:
    """Run a kind in a process of its own; raises TrainingError and its kinds."""
    done = subprocess.run([sys.executable, '-m', 'moe_training.dataset_command', kind, json.dumps(arguments)],
                          capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]
        raise TrainingError(f'The dataset could not be worked on: {last}.')
    answer = json.loads(done.stdout)
    if 'error' in answer:
        raise error_of(answer['code'], answer['error'])
    result: dict[str, Any] = answer['result']
    return result


def main() -> int:
    """Run a kind; the exit code is 0 also where the answer is an error."""
    os.nice(NICENESS)
    kind, arguments = sys.argv[1:]
    try:
        answer: dict[str, Any] = {'result': _KINDS[kind](**json.loads(arguments))}
    except TrainingError as error:
        answer = {'error': str(error), 'code': error.code}
    except OSError as error:
        answer = {'error': f'{error.filename or "A file"} cannot be written ({error.strerror}).',
                  'code': TrainingError.code}
    print(json.dumps(answer))
    return 0


if __name__ == '__main__':
    sys.exit(main())
