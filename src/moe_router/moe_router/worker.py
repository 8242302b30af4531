"""The worker process that fits a head, seen from the node that waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_router.classifier import Head


@dataclass(frozen=True)
class Fitted:
    """A finished fit; `refusal` says why the gate keeps the old one, '' = it may serve."""

    head: Head
    path: Path
    refusal: str

    @property
    def report(self) -> dict[str, Any]:
        """Figures of the fit."""
        return dict(json.loads(self.head.report))

    def metrics(self) -> dict[str, float]:
        """What the registry keeps of the report."""
        report = self.report
        return {name: float(report[name]) for name in ('accuracy', 'macro_f1', 'ece', 'ood_recall')
                if report[name] == report[name]}


class FitError(Exception):
    """The samples allow no fit, or it was cancelled."""


def fit_in_worker(samples: Sequence[tuple[str, str, str]], digest: str, folder: Path, old: Path, fallback: str,
                  margin: float, say: Callable[[str, float], None], cancelled: Callable[[], bool]) -> Fitted:
    """Fit in a process of its own, niced; raises FitError.

    Args:
        folder: receives head.npz, report.json and confusion.png.
        old: head that serves, for the gate.
        cancelled: asked five times a second; True ends the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = folder / 'order.json'
    order.write_text(json.dumps({
        'digest': digest, 'samples': list(samples), 'fallback': fallback, 'old': str(old), 'margin': margin,
        'folder': str(folder)}), encoding='utf-8')
    # threads that wait spinning, or more of them than cores, make small matrices ten times slower
    environment = dict(os.environ, OMP_WAIT_POLICY='PASSIVE', OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
    last: dict[str, Any] = {}
    with subprocess.Popen(['nice', '-n', '5', sys.executable, '-m', 'moe_router.fitting', str(order)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                          start_new_session=True) as process:
        assert process.stdout is not None and process.stderr is not None
        errors: list[str] = []
        readers = [threading.Thread(target=lambda: errors.extend(process.stderr or ())),
                   threading.Thread(target=_read, args=(process.stdout, last, say))]
        for reader in readers:
            reader.start()
        ended = False
        while process.poll() is None:
            if cancelled():
                process.kill()
                ended = True
                break
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        for reader in readers:
            reader.join()
    order.unlink(missing_ok=True)
    if ended:
        raise FitError('The fit was cancelled.')
    if 'error' in last or 'refusal' not in last:
        raise FitError(last.get('error') or (errors or ['The worker ended without a reason.'])[-1].strip())
    path = folder / 'head.npz'
    return Fitted(Head.load(path), path, str(last['refusal']))


def _read(lines: Any, last: dict[str, Any], say: Callable[[str, float], None]) -> None:
    """Follow the worker's lines; what is no JSON object is not ours."""
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if 'phase' in said:
            say(said['phase'], float(said['progress']))
        last.update(said)
