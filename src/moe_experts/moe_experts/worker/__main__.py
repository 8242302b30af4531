"""A worker: `python -m moe_experts.worker BASE.gguf THREADS`; one JSON object a line on standard input and output."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from moe_experts.engines.engine import EngineError, Piece, Request, Result, Sampling
from moe_experts.engines.llama import LlamaEngine

_PR_SET_PDEATHSIG = 1


def request_of(message: dict[str, Any]) -> Request:
    """A request as it came over the wire; the deadline travels as seconds left."""
    fields = dict(message)
    left = fields.pop('timeout_s', 0.0)
    sampling = fields.pop('sampling')
    sampling['logit_bias'] = tuple(map(tuple, sampling.get('logit_bias', ())))
    return Request(**{**fields, 'messages': tuple(map(tuple, fields['messages'])), 'stop': tuple(fields['stop']),
                      'sampling': Sampling(**sampling), 'deadline': time.monotonic() + left if left else 0.0})


def handle(engine: LlamaEngine, message: dict[str, Any]) -> Any:
    """Carry out one command; returns what is answered. Raises EngineError."""
    verb = message['verb']
    if verb == 'submit':
        engine.submit(request_of(message['request']))
        return None
    if verb == 'cancel':
        engine.cancel(message['id'])
        return None
    if verb == 'load_adapter':
        engine.load_adapter(message['key'], Path(message['path']), message['scale'])
        return True
    if verb == 'unload_adapter':
        engine.unload_adapter(message['key'])
        return True
    if verb == 'tokenize':
        return engine.tokenize(message['text'])
    if verb == 'detokenize':
        return engine.detokenize(message['tokens'])
    return engine.metadata()


def main() -> int:
    """Serve until standard input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides when its worker ends
    # llama.cpp and its libraries may print; the protocol keeps a descriptor of its own.
    wire = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        wire.write(json.dumps(message) + '\n')

    try:
        engine = LlamaEngine(Path(sys.argv[1]), threads=int(sys.argv[2]))
    except EngineError as error:
        send({'kind': 'fatal', 'error_msg': str(error)})
        return 1
    send({'kind': 'ready'})
    commands: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            commands.put(json.loads(line))
        commands.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        wait = not engine.busy()
        while wait or not commands.empty():
            wait = False
            message = commands.get()
            if message is None:
                engine.close()
                return 0
            try:
                answer = handle(engine, message)
                if answer is not None:
                    send({'kind': 'answer', 'call': message['call'], 'value': answer})
            except EngineError as error:
                if message['verb'] == 'submit':
                    result = Result(message['request']['id'], '', (), 'error', 0, error_code=error.code,
                                    error_msg=str(error))
                    send({'kind': 'result', **result.__dict__, 'retry_after_s': error.retry_after_s})
                elif 'call' in message:
                    send({'kind': 'answer', 'call': message['call'], 'error_code': error.code,
                          'error_msg': str(error)})
        for item in engine.step():
            send({'kind': 'piece' if isinstance(item, Piece) else 'result', **item.__dict__})


if __name__ == '__main__':
    sys.exit(main())
