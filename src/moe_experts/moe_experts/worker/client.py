"""The node's side of a worker: starts it, restarts it, and keeps what waits through a restart."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from moe_experts.engines.engine import EngineError, EngineSettings, Piece, Request, Result
from moe_experts.worker.starter import Process, Starter
from moe_experts.worker.watch import Limits, Watch, resident_bytes
from moe_experts.worker.wire import fields_of

START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 30.0
WATCH_S = 0.5
ATTEMPTS = 2  # a request that takes its worker down with it is not asked for ever
Listener = Callable[[Piece | Result], None]


class _Open:
    """A request on its way; `text` is what was streamed."""

    def __init__(self, request: Request, listener: Listener) -> None:
        self.request = request
        self.listener = listener
        self.text = ''
        self.attempts = 1


class Worker:
    """A supervised worker process.

    Args:
        base: GGUF file, or folder of safetensors, that it loads.
        settings: of its engine.
        tell: receives one line about every restart.
        limits: beyond which it is ended and started again.
        starter: of its processes.

    After a crash, requests that had streamed text get 3000 INFERENCE_FAILED with it; the others are asked once again.

    Attributes:
        failed: it could not be started again; whatever is asked of it raises EngineError.
        running, waiting: requests in the batch, and behind it.
        restarts, pieces: since the start; pieces of text that were streamed.
    """

    def __init__(self, base: Path, settings: EngineSettings, tell: Callable[[str], None], limits: Limits,
                 starter: Starter) -> None:
        self._starter = starter
        self._base, self._settings, self._tell, self._limits = base, settings, tell, limits
        self._lock = threading.RLock()
        self._open: dict[str, _Open] = {}
        self._calls: dict[int, Future[Any]] = {}
        self._adapters: dict[str, tuple[Path, float]] = {}
        self._call = 0
        self._closed = False
        self.restarts = self.running = self.waiting = self.pieces = 0
        self.failed = False
        self._process: Process
        self._watch: Watch
        self._ended_for = ''
        started: Future[None] = Future()
        threading.Thread(target=self._supervise, args=(started,), daemon=True, name='worker').start()
        started.result()
        threading.Thread(target=self._look_after, daemon=True, name='watch').start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def _start(self) -> Process:
        process = self._starter.start(self._base, self._settings)
        assert process.stdout is not None
        timer = threading.Timer(START_TIMEOUT_S, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        first: dict[str, Any] = json.loads(line) if line else {
            'kind': 'fatal', 'error_msg': f'The worker of {self._base} ended while it loaded, or took longer than '
                                          f'{START_TIMEOUT_S:.0f} s.'}
        if first['kind'] == 'fatal':
            process.wait()
            raise EngineError(first['error_msg'], first.get('error_code', 1001))
        self._watch, self._ended_for = Watch(process.pid, self._limits), ''
        return process

    def _look_after(self) -> None:
        """End the process when it stalls or grows; what reads from it starts the next one."""
        while not (self._closed or self.failed):
            time.sleep(WATCH_S)
            with self._lock:
                if verdict := self._watch.verdict(bool(self._open or self._calls)):
                    self._ended_for = verdict
                    self._process.kill()
                    self._watch.heard()

    def _supervise(self, started: Future[None]) -> None:
        try:
            self._process = self._start()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        while self._read(self._process):
            continue

    def _read(self, process: Process) -> bool:
        """Relay what a process says until it ends; returns whether there is a new one."""
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith('\n'):
                break  # it ended in the middle of a message
            message = json.loads(line)
            self._watch.heard()
            kind = message.pop('kind')
            if kind == 'counts':
                self.running, self.waiting = message['running'], message['waiting']
            elif kind == 'answer':
                self._answered(message)
            elif kind in ('piece', 'result'):
                self._relay(Piece(**message) if kind == 'piece' else
                            Result(**{**message, 'tokens': tuple(message['tokens'])}))
        return self._ended(process.wait())

    def _answered(self, message: dict[str, Any]) -> None:
        future = self._calls.pop(message['call'], None)
        if future is None:
            return
        if 'error_code' in message:
            future.set_exception(EngineError(message['error_msg'], message['error_code']))
        else:
            future.set_result(message['value'])

    def _relay(self, item: Piece | Result) -> None:
        with self._lock:
            entry = self._open.get(item.id) if isinstance(item, Piece) else self._open.pop(item.id, None)
            if entry is not None and isinstance(item, Piece):
                entry.text += item.text
                self.pieces += 1
        if entry is not None:
            entry.listener(item)

    def _ended(self, code: int) -> bool:
        """Start anew after a crash; returns whether that worked."""
        self.running = self.waiting = 0
        if self._closed:
            return False
        cause = signal.Signals(-code).name if code < 0 else f'exit code {code}'
        if self._ended_for:
            cause = self._ended_for
        elif code == -signal.SIGKILL:
            cause += f' (killed {self._watch.killer()})'
        self._tell(f'The worker of {self._base.name} ended: {cause}; starting it again.')
        # Held until the new process has everything: what is submitted meanwhile waits and is not lost.
        with self._lock:
            sentence = f'The worker ended while it answered: {cause}; ask again.'
            failed = [(entry, self._failure(entry, 3000, sentence)) for entry in self._open.values()
                      if entry.text or entry.attempts >= ATTEMPTS]
            for entry, _result in failed:
                del self._open[entry.request.id]
            calls, self._calls = self._calls, {}
            try:
                self._process = self._start()
                for key, (path, scale) in self._adapters.items():
                    self._send({'verb': 'load_adapter', 'call': 0, 'key': key, 'path': str(path), 'scale': scale})
                for entry in self._open.values():
                    entry.attempts += 1
                    self._submit(entry.request)
            except EngineError as error:
                self._tell(f'The worker cannot be started again: {error}')
                failed += [(entry, self._failure(entry, error.code, str(error))) for entry in self._open.values()]
                self._open.clear()
                self.failed = True
            self.restarts += 1
        for future in calls.values():
            future.set_exception(EngineError(f'The worker ended: {cause}.', 3000))
        for entry, result in failed:
            entry.listener(result)
        return not self.failed

    @staticmethod
    def _failure(entry: _Open, code: int, message: str) -> Result:
        return Result(entry.request.id, entry.text, (), 'error', 0, error_code=code, error_msg=message)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            with self._lock:
                self._process.stdin.write(json.dumps(message) + '\n')
        except OSError:
            # the reader sees the end as well and starts a new worker, which gets what is still open
            return

    def call(self, verb: str, **arguments: Any) -> Any:
        """Ask and wait; raises EngineError."""
        future: Future[Any] = Future()
        with self._lock:
            self._check()
            self._awaken()
            self._call += 1
            self._calls[self._call] = future
            self._send({'verb': verb, 'call': self._call, **arguments})
        try:
            return future.result(CALL_TIMEOUT_S)
        except TimeoutError:
            raise EngineError(f'The worker did not answer {verb} within {CALL_TIMEOUT_S:.0f} s.', 3001) from None

    def _awaken(self) -> None:
        """Silence counts from when there is something to do."""
        if not (self._open or self._calls):
            self._watch.heard()

    def _check(self) -> None:
        if self._closed:
            raise EngineError('The expert node is stopping.', 1001)
        if self.failed:
            raise EngineError(f'The worker of {self._base.name} cannot be started; its log says why.', 1001)

    def load_adapter(self, key: str, path: Path, scale: float) -> None:
        """Load an adapter, also into every later process."""
        self.call('load_adapter', key=key, path=str(path), scale=scale)
        self._adapters[key] = (path, scale)

    def scale_adapter(self, key: str, scale: float) -> None:
        """Apply a loaded adapter with another scale, also in every later process."""
        self.call('scale_adapter', key=key, scale=scale)
        self._adapters[key] = (self._adapters[key][0], scale)

    def unload_adapter(self, key: str) -> None:
        """Free an adapter; what runs on it ends with an error."""
        self._adapters.pop(key, None)
        self.call('unload_adapter', key=key)

    def submit(self, request: Request, listener: Listener) -> None:
        """Send a request; the listener hears every piece and the result, from the reader's thread."""
        with self._lock:
            self._check()
            self._awaken()
            self._open[request.id] = _Open(request, listener)
            self._submit(request)

    def _submit(self, request: Request) -> None:
        self._send({'verb': 'submit', 'request': fields_of(request)})

    def cancel(self, request_id: str) -> None:
        """End a request; its listener hears the result."""
        self._send({'verb': 'cancel', 'id': request_id})

    def resident_bytes(self) -> int:
        """Memory of the process, mapped files included; 0 while it is restarted."""
        return resident_bytes(self.pid)

    def close(self) -> None:
        """End the process; what is open ends with an error."""
        self._closed = True
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(3.0)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        with self._lock:
            entries, self._open = list(self._open.values()), {}
            calls, self._calls = list(self._calls.values()), {}
        for future in calls:
            future.set_exception(EngineError('The worker was ended.', 3000))
        for entry in entries:
            entry.listener(self._failure(entry, 3000, 'The expert node was stopped while it answered.'))
