"""What experts are compared with: a bare llama.cpp loop, and llama-cpp-python's own server."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import llama_cpp.llama_cpp as llama
import numpy as np

from moe_experts.engines.llama import repacks

# Every side of a comparison repacks weights or none does; the server has no option for it.
SERVER = f'''
import runpy
import llama_cpp.llama_cpp as llama
usual = llama.llama_model_default_params
def settings():
    found = usual()
    found.use_extra_bufts = {repacks()}
    return found
llama.llama_model_default_params = settings
runpy.run_module('llama_cpp.server', run_name='__main__')
'''
_quiet = llama.llama_log_callback(lambda _level, _text, _data: None)


@cache
def _bare(path: Path) -> tuple[Any, Any, Any]:
    llama.llama_log_set(_quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    loading = llama.llama_model_default_params()
    loading.use_extra_bufts = repacks()
    model = llama.llama_model_load_from_file(str(path).encode(), loading)
    settings = llama.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 2048, os.cpu_count(), os.cpu_count()
    return model, llama.llama_init_from_model(model, settings), llama.llama_model_get_vocab(model)


def bare_decode(path: Path, prompt: str, count: int) -> float:
    """Greedy tokens/s of a loop that does nothing but decode, with a thread per core."""
    _model, context, vocabulary = _bare(path)
    size = llama.llama_vocab_n_tokens(vocabulary)
    data = prompt.encode()
    tokens = (llama.llama_token * 512)()
    used = llama.llama_tokenize(vocabulary, data, len(data), tokens, 512, True, True)
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    llama.llama_decode(context, llama.llama_batch_get_one(tokens, used))
    one = (llama.llama_token * 1)()
    begin = time.monotonic()
    for _ in range(count):
        one[0] = int(np.ctypeslib.as_array(llama.llama_get_logits(context), shape=(size,)).argmax())
        llama.llama_decode(context, llama.llama_batch_get_one(one, 1))
    return count / (time.monotonic() - begin)


@contextlib.contextmanager
def server(path: Path) -> Iterator[str]:
    """llama-cpp-python's server in a process of its own; yields its address, '' where it is not installed.

    With its defaults but for interrupt_requests: a new caller would otherwise end the answer of the one before.
    """
    if importlib.util.find_spec('sse_starlette') is None or importlib.util.find_spec('starlette_context') is None:
        print('llama-cpp-python\'s server is not installed: ./moe exec pip install -r requirements/benchmarks.txt')
        yield ''
        return
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, '-c', SERVER, '--model', str(path), '--host', '127.0.0.1', '--port', str(port),
         '--n_threads', str(os.cpu_count()), '--n_threads_batch', str(os.cpu_count()), '--interrupt_requests', 'false'],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f'http://127.0.0.1:{port}'
    try:
        give_up = time.monotonic() + 60
        while True:
            if process.poll() is not None or time.monotonic() > give_up:
                print(f'llama-cpp-python\'s server does not start (exit code {process.poll()}).')
                yield ''
                return
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f'{address}/v1/models', timeout=5.0)
                break
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def server_calls(address: str, system: str, prompts: list[str], count: int) -> tuple[float, list[float]]:
    """Ask the server with so many callers at once; returns tokens/s of all together and each first token [s]."""
    first: list[float] = [0.0] * len(prompts)
    tokens = [0] * len(prompts)
    end_token = 2  # of SmolLM2; the server knows no ignore_eos

    def ask(index: int) -> None:
        begin = time.monotonic()
        with httpx.stream('POST', f'{address}/v1/chat/completions', timeout=600.0, json={
                'messages': [{'role': 'system', 'content': system}, {'role': 'user', 'content': prompts[index]}],
                'max_tokens': count, 'temperature': 0.0, 'stream': True,
                'logit_bias': {str(end_token): -100.0}}) as answer:
            for line in answer.iter_lines():
                if line.startswith('data: {') and json.loads(line[6:])['choices'][0]['delta'].get('content'):
                    first[index] = first[index] or time.monotonic() - begin
                    tokens[index] += 1

    begin = time.monotonic()
    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(tokens) / (time.monotonic() - begin), first
