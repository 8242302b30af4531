"""The parameters of the expert node, declared once."""

from __future__ import annotations

import os
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from moe_experts.engines.engine import EngineSettings
from moe_experts.worker.watch import Limits

_MOST = 1 << 31

# name, default, lowest, highest, description; a text or list has no range
_PARAMETERS: tuple[tuple[str, Any, float, float, str], ...] = (
    ('experts.cache_size', 3, 1, 1000,
     'experts loaded at once; the least recently used idle one goes first, the base under loaded adapters is free'),
    ('experts.memory_budget_mb', 0, 0, _MOST, '[MB] of bases and adapters together; 0 = no limit'),
    ('experts.keep_alive', -1.0, -1.0, 1e9,
     '[s] an expert stays loaded after an answer that does not say it itself; 0 = unload, -1 = until evicted'),
    ('experts.preload', [''], 0, 0, 'names of experts that are loaded at start and pinned'),
    ('experts.default', '', 0, 0, 'name of the expert that answers goals without one; empty = such goals are refused'),
    ('inference.dynamic_batching', True, 0, 0, 'decode requests together; false = one after another'),
    ('inference.max_batch_size', 32, 1, 256, 'sequences that run at once'),
    ('inference.timeout_ms', 10, 0, 1000,
     '[ms] a lone request waits for company while nothing runs, where requests come that close together'),
    ('inference.queue_limit', 64, 1, 10000, 'requests that wait behind the batch; more are refused with 3002'),
    ('inference.context_tokens', 8192, 256, 1 << 20, '[tokens] of the KV cache that all sequences of a base share'),
    ('inference.use_kv_cache', True, 0, 0, 'begin prompts with what earlier ones left in the KV cache'),
    ('inference.kept_mb', 64, 0, 1 << 20, '[MB] of what finished sequences had in the KV cache, kept beside it'),
    ('inference.stream_interval_ms', 25, 0, 1000,
     '[ms] at least between two messages of a stream behind its first text; 0 = one for each token'),
    ('inference.guess_answers', True, 0, 0,
     'guess tokens and decode them along: what an answer reads from its prompt, and what answers bound by a schema, '
     'regex or grammar were to similar prompts'),
    ('inference.cache_type', 'f16', 0, 0, 'number format of the KV cache: f16, f32, q8_0, ...'),
    ('inference.flash_attention', False, 0, 0,
     'llama.cpp\'s: on a CPU it reads prompts a fifth faster and decodes slower, half as fast behind 500 tokens; a '
     'quantised KV cache needs it'),
    ('inference.cache_enabled', True, 0, 0, 'answer a request that is exactly as an earlier one from memory'),
    ('inference.cache_size', 1000, 0, 1000000, 'answers remembered'),
    ('inference.threads', 0, 0, 256, 'threads that decode at most, fewer while others use the cores; 0 = one per core'),
    ('inference.threads_batch', 0, 0, 256, 'threads that decode prompts at most; 0 = as for decoding'),
    ('inference.cpu_affinity', [-1], 0, 0, 'cores that workers may use; [-1] = all'),
    ('inference.n_gpu_layers', 0, 0, 10000, 'layers on the GPU, where llama.cpp was built with CUDA'),
    ('inference.use_mmap', True, 0, 0, 'map model files instead of reading them'),
    ('inference.use_mlock', False, 0, 0, 'keep models from being swapped out'),
    ('stall_timeout_s', 30.0, 0.0, 1e6, '[s] without a step while work is queued after which a worker is started anew'),
    ('max_growth_mb', 1024, 0, _MOST, '[MB] that a worker\'s memory may grow by before it is started anew; 0 = any'),
    ('shutdown_grace_s', 3.0, 0.0, 3600.0, '[s] at shutdown for running answers to finish; then they are cancelled'),
    ('replica', 0, 0, 10000, 'number of this node among those that serve the same experts'),
)


def declare(node: Node) -> None:
    """Declare all of them; they are read at start."""
    for name, default, low, high, description in _PARAMETERS:
        descriptor = ParameterDescriptor(description=description, read_only=True)
        if isinstance(default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        elif isinstance(default, int) and not isinstance(default, bool):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        node.declare_parameter(name, default, descriptor)


def value(node: Node, name: str) -> Any:
    """A parameter's value."""
    return node.get_parameter(name).value


def engine_settings(node: Node) -> EngineSettings:
    """Settings of the engines."""
    def read(name: str) -> Any:
        return value(node, f'inference.{name}')
    return EngineSettings(
        threads=read('threads') or os.cpu_count() or 1, threads_batch=read('threads_batch'),
        slots=read('max_batch_size') if read('dynamic_batching') else 1, context_tokens=read('context_tokens'),
        queue_limit=read('queue_limit'), company_s=read('timeout_ms') / 1000, use_kv_cache=read('use_kv_cache'),
        kept_bytes=read('kept_mb') * 1_000_000, guess_answers=read('guess_answers'), cache_type=read('cache_type'),
        flash_attention=read('flash_attention'), gpu_layers=read('n_gpu_layers'), mmap=read('use_mmap'),
        mlock=read('use_mlock'), affinity=tuple(core for core in read('cpu_affinity') if core >= 0))


def limits(node: Node) -> Limits:
    """Limits of the workers."""
    return Limits(value(node, 'stall_timeout_s'), value(node, 'max_growth_mb'))
