"""A worker: `python -m moe_experts.worker`; one JSON object a line on standard input and output.

The first line names the base and the EngineSettings. Requests are batched; what computes at once (score, embed,
distribution) takes turns with the steps of the batch, one at a time, so that running answers go on.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import setproctitle

from moe_experts.engines.engine import Engine, EngineError, EngineSettings, Piece, Result
from moe_experts.engines.opening import open_engine
from moe_experts.worker.wire import pairs, request_of

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = '500'  # where memory runs out, the worker goes and the node that can start it again stays
_FOREVER_S = 1e6
ALIVE_S = 0.5  # a busy worker says so often that it is getting on
_COMPUTING = {'score', 'embed', 'distribution'}


def handle(engine: Engine, message: dict[str, Any]) -> Any:
    """Carry out one call; returns what is answered. Raises EngineError."""
    arguments = {key: value for key, value in message.items() if key not in ('verb', 'call')}
    if 'messages' in arguments:
        arguments['messages'] = pairs(arguments['messages'])
    if 'path' in arguments:
        arguments['path'] = Path(arguments['path'])
    return getattr(engine, message['verb'])(**arguments)


class Server:
    """Feeds an engine with what comes over the wire, and sends what comes out.

    Args:
        engine: that this thread owns.
        wire: file that the node reads.
        company_s: how long a lone request may wait for others that are likely to come.
    """

    def __init__(self, engine: Engine, wire: Any, company_s: float) -> None:
        self._engine, self._wire, self._company_s = engine, wire, company_s
        self._arrived = self._told = 0.0
        self._commands: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._computing: deque[dict[str, Any]] = deque()
        self._counts = (0, 0)

    def run(self) -> None:
        """Serve until standard input ends."""
        threading.Thread(target=self._read, daemon=True).start()
        while self._take():
            if self._computing:
                self._answer(self._computing.popleft())
            if time.monotonic() - self._told >= ALIVE_S:
                self._told = time.monotonic()
                self.send({'kind': 'alive'})
            for item in self._engine.step():
                self.send({'kind': 'piece' if isinstance(item, Piece) else 'result', **item.__dict__})
            if self._engine.counts() != self._counts:
                self._counts = self._engine.counts()
                self.send({'kind': 'counts', 'running': self._counts[0], 'waiting': self._counts[1]})

    def send(self, message: dict[str, Any]) -> None:
        """Write one message."""
        self._wire.write(json.dumps(message) + '\n')

    def _read(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message['verb'] == 'cancel':
                self._engine.interrupt(message['id'])
            self._commands.put(message)
        self._commands.put(None)

    def _take(self) -> bool:
        """Take what has come, or wait where nothing is to do; False at the end."""
        idle = not self._engine.busy() and not self._computing
        until = math.inf if idle else 0.0
        while True:
            left = until - time.monotonic()
            try:
                message = self._commands.get(left > 0.0, min(left, _FOREVER_S))
            except queue.Empty:
                return True
            if message is None:
                return False
            if until == math.inf:
                until = 0.0
            if message['verb'] == 'submit':
                until = until or (time.monotonic() + self._company() if idle else 0.0)
                self._submit(message['request'])
            elif message['verb'] == 'cancel':
                self._engine.cancel(message['id'])
            elif message['verb'] in _COMPUTING:
                self._computing.append(message)
            else:
                self._answer(message)

    def _company(self) -> float:
        """How long [s] to wait for the next request: not at all unless they have been coming close together."""
        now = time.monotonic()
        gap, self._arrived = now - self._arrived, now
        return self._company_s if gap < self._company_s else 0.0

    def _submit(self, fields: dict[str, Any]) -> None:
        try:
            self._engine.submit(request_of(fields))
        except EngineError as error:
            result = Result(fields['id'], '', (), 'error', 0, error_code=error.code, error_msg=str(error),
                            retry_after_s=error.retry_after_s)
            self.send({'kind': 'result', **result.__dict__})

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            self.send({'kind': 'answer', 'call': message['call'], 'value': handle(self._engine, message)})
        except EngineError as error:
            self.send({'kind': 'answer', 'call': message['call'], 'error_code': error.code, 'error_msg': str(error)})


def main() -> int:
    """Serve until standard input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides when its worker ends
    Path('/proc/self/oom_score_adj').write_text(_OOM_SCORE)
    # llama.cpp and its libraries may print; the protocol keeps a descriptor of its own.
    wire = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    importlib.import_module('moe_experts.engines.llama')  # what nearly every base needs, while nobody waits
    first = sys.stdin.readline()
    if not first:
        return 0
    asked = json.loads(first)
    base, settings = Path(asked['base']), EngineSettings(**asked['settings'])
    setproctitle.setproctitle(f'moe_experts.worker {base}')
    try:
        if settings.affinity:
            os.sched_setaffinity(0, settings.affinity)
        engine = open_engine(base, settings)
    except OSError as error:
        wire.write(json.dumps({'kind': 'fatal', 'error_msg': f'The cores {settings.affinity} cannot be used: {error}'})
                   + '\n')
        return 1
    except EngineError as error:
        wire.write(json.dumps({'kind': 'fatal', 'error_msg': str(error), 'error_code': error.code}) + '\n')
        return 1
    server = Server(engine, wire, settings.company_s)
    server.send({'kind': 'ready'})
    server.run()
    engine.close()
    return 0


if __name__ == '__main__':
    sys.exit(main())
