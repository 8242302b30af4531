"""Starts worker processes, and keeps one in reserve that has its libraries loaded already.

Python and the libraries take half a second to load, a mapped model a tenth of that: with a process in reserve a base is
served, or a crashed worker replaced, in the time that its model needs.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from moe_experts.engines.engine import EngineSettings

RESERVE_DELAY_S = 3.0  # the reserve is made when the one before has its model
Process = subprocess.Popen[str]


class Starter:
    """Makes the processes from one thread that stays: the kernel ends a process when the thread that made it ends.

    Args:
        threads: that a worker decodes with.
        reserve: whether to keep a process in reserve.
    """

    def __init__(self, threads: int, reserve: bool = True) -> None:
        self._threads, self._reserve = threads, reserve
        self._wanted: queue.SimpleQueue[Future[Process] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True, name='starter')
        self._thread.start()

    def start(self, base: Path, settings: EngineSettings) -> Process:
        """A process that loads this base now; raises OSError."""
        future: Future[Process] = Future()
        self._wanted.put(future)
        process = future.result()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it ended already: whoever reads from it finds that out
            process.stdin.write(json.dumps({'base': str(base), 'settings': asdict(settings)}) + '\n')
        return process

    def close(self) -> None:
        """End the process in reserve; those that were handed out belong to others."""
        self._wanted.put(None)
        self._thread.join()

    def _serve(self) -> None:
        spare: Process | None = None
        delay: float | None = None
        while True:
            try:
                future = self._wanted.get(timeout=delay)
            except queue.Empty:
                spare, delay = self._make(), None
                continue
            if future is None:
                break
            try:
                future.set_result(spare if spare is not None and spare.poll() is None else self._make())
            except OSError as error:
                future.set_exception(error)
            spare, delay = None, RESERVE_DELAY_S if self._reserve else None
        if spare is not None:
            spare.kill()
            spare.wait()

    def _make(self) -> Process:
        # Threads of a step wait for each other hundreds of times. libgomp's default lets them spin for milliseconds,
        # which starves whatever else wants the core; not spinning at all makes a step four times as long.
        # Huge pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1) were tried: a KV cache is then made in 40 ms, not 140,
        # but not the first one of a process, and here it is the only one (on one virtual machine that took 0.5 s more).
        environment = dict({'GOMP_SPINCOUNT': '10000'}, **os.environ)
        environment.update(OMP_NUM_THREADS=str(self._threads), MKL_NUM_THREADS='1', HF_HUB_OFFLINE='1',
                           TOKENIZERS_PARALLELISM='false')
        return subprocess.Popen([sys.executable, '-m', 'moe_experts.worker'], text=True, bufsize=1,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
