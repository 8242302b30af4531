"""Work outside the node's process: `python -m moe_training.command KIND ARGUMENTS`.

KIND is a key of _KINDS, ARGUMENTS a JSON object of the function's. Prints one JSON object a line: "phase" and
"progress" on the way, at the end "result", or "error" and "code". What it imported is gone with the process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moe_training.errors import CancelledError, TrainingError, error_of

NICENESS = 5
POLL_S = 0.2
Tell = Callable[[str, float], None]


def _validate(_tell: Tell, path: str) -> dict[str, Any]:
    from moe_training.dataset import validate

    return asdict(validate(Path(path)))


def _analyse(_tell: Tell, path: str, compared_with: str, plot: str) -> dict[str, Any]:
    from moe_training.dataset_analysis import analyse

    return analyse(Path(path), Path(compared_with) if compared_with else None, Path(plot) if plot else None)


def _prepare(_tell: Tell, domain: str, paths: list[str], output: str, holdout: float) -> dict[str, Any]:
    from moe_training.dataset_preparation import prepare

    return asdict(prepare(domain, list(map(Path, paths)), Path(output) if output else None, holdout))


def _convert(tell: Tell, **arguments: Any) -> dict[str, Any]:
    from moe_training.conversion import convert

    return asdict(convert(**arguments, tell=tell))


def _quantise(tell: Tell, **arguments: Any) -> dict[str, Any]:
    from moe_training.requantisation import requantise

    return asdict(requantise(**arguments, tell=tell))


_KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    'validate': _validate, 'analyse': _analyse, 'prepare': _prepare, 'convert': _convert, 'quantise': _quantise}


def ask(kind: str, *, hear: Tell = lambda _phase, _progress: None, cancelled: Callable[[], bool] = lambda: False,
        **arguments: Any) -> dict[str, Any]:
    """Run a kind in a process of its own; raises TrainingError and its kinds, CancelledError when asked to end."""
    with tempfile.TemporaryFile('w+') as words:
        process = subprocess.Popen(
            [sys.executable, '-m', 'moe_training.command', kind, json.dumps(arguments)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=words, text=True, start_new_session=True,
            env=dict(os.environ, OMP_WAIT_POLICY='PASSIVE', TOKENIZERS_PARALLELISM='false', TQDM_DISABLE='1'))
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(POLL_S):
                if cancelled() and process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

        threading.Thread(target=watch, daemon=True, name=kind).start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                answer = json.loads(line)
                if 'phase' in answer:
                    hear(answer['phase'], answer['progress'])
                elif 'error' in answer:
                    raise error_of(answer['code'], answer['error'])
                else:
                    result: dict[str, Any] = answer['result']
                    return result
            process.wait()
            if cancelled():
                raise CancelledError(f'The {kind} was cancelled.')
            words.seek(0)
            last = (words.read().strip().splitlines() or [f'exit code {process.returncode}'])[-1]
            raise TrainingError(f'The process of {kind} ended without an answer: {last}.')
        finally:
            ended.set()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def main() -> int:
    """Run a kind; the exit code is 0 also where the answer is an error."""
    os.nice(NICENESS)
    kind, arguments = sys.argv[1:]
    wire = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # torch and llama.cpp print

    def tell(phase: str, progress: float) -> None:
        wire.write(json.dumps({'phase': phase, 'progress': progress}) + '\n')

    try:
        answer: dict[str, Any] = {'result': _KINDS[kind](tell, **json.loads(arguments))}
    except TrainingError as error:
        answer = {'error': str(error), 'code': error.code}
    except OSError as error:
        answer = {'error': f'{error.filename or "A file"} cannot be written ({error.strerror}).',
                  'code': TrainingError.code}
    wire.write(json.dumps(answer) + '\n')
    wire.close()
    return 0


if __name__ == '__main__':
    sys.exit(main())
