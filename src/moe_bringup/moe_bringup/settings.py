"""The keys of a configuration file: sections, defaults, meanings, and which node's parameter each one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SECTIONS = ('api', 'training', 'experts', 'inference', 'database', 'system')
TRAIN = 'moe train'  # the owner of what is no node's parameter but a default of that verb
LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
LOG_FORMATS = ('text', 'json')


@dataclass(frozen=True)
class Setting:
    """One key.

    Attributes:
        key: with its section, as `api.port`.
        default: what holds without it; its type is the type that is accepted.
        meaning: what people read in the example file, with unit.
        owner: node in the process table, TRAIN, or '' = the process table itself.
        parameter: of the node, or option of the verb; '' = the key without or with its section, as the node has it.
        choices: the only values, where there are few.
    """

    key: str
    default: Any
    meaning: str
    owner: str = ''
    parameter: str = ''
    choices: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        """The part before the dot."""
        return self.key.partition('.')[0]

    @property
    def target(self) -> str:
        """Name of the parameter or option."""
        return self.parameter or self.key


SETTINGS = (
    Setting('api.host', '127.0.0.1', 'address of the gateway; 0.0.0.0 = every one, which demands API keys', 'gateway'),
    Setting('api.port', 8000, 'its port', 'gateway'),
    Setting('api.workers', 1, 'processes that answer HTTP', 'gateway'),
    Setting('api.rate_limit', 1200, 'requests per minute and key; 0 = no limit', 'gateway'),
    Setting('api.generate_timeout_s', 120.0, 'of an answer whose caller names no timeout [s]', 'gateway'),
    Setting('api.metrics_port', 9090, 'port of /metrics for Prometheus', 'gateway', 'metrics.port'),

    Setting('training.batch_size', 8, 'sequences per step', TRAIN, 'batch_size'),
    Setting('training.gradient_accumulation', 1, 'steps that are summed before the weights move', TRAIN,
            'gradient_accumulation'),
    Setting('training.learning_rate', 0.0, 'peak of the schedule; 0 = 1e-3 for LoRA, 1e-4 for full', TRAIN,
            'learning_rate'),
    Setting('training.max_grad_norm', 1.0, 'gradients are clipped to it; 0 = off', TRAIN, 'max_grad_norm'),
    Setting('training.gradient_checkpointing', False, 'less memory, more time', TRAIN, 'gradient_checkpointing'),
    Setting('training.num_workers', 0, 'processes that prepare batches', TRAIN, 'num_workers'),
    Setting('training.epochs', 3.0, 'passes over the dataset', TRAIN, 'epochs'),
    Setting('training.use_lora', True, 'false = all weights (method full)', TRAIN, 'method'),
    Setting('training.lora_rank', 8, 'size of an adapter', TRAIN, 'lora_rank'),
    Setting('training.use_fp16', False, 'half precision; false = what the machine does best', TRAIN, 'precision'),
    Setting('training.max_seq_len', 256, 'longest row [tokens]', TRAIN, 'max_seq_len'),
    Setting('training.max_concurrent', 1, 'jobs at once', 'training', 'max_concurrent'),
    Setting('training.stuck_timeout_s', 900.0, 'without a sign of life after which a job is ended [s]', 'training',
            'stuck_timeout_s'),
    Setting('training.max_memory_mb', 0, 'limit of a worker\'s memory [MB]; 0 = none', 'training', 'max_memory_mb'),
    Setting('training.checkpoint_steps', 100, 'steps between checkpoints', 'training', 'checkpoint_steps'),
    Setting('training.keep_last', 2, 'checkpoints that are kept', 'training', 'keep_last'),
    Setting('training.resume_lost_workers', False, 'start a killed worker again from its checkpoint', 'training',
            'resume_lost_workers'),

    Setting('experts.cache_size', 3, 'experts loaded at once', 'experts'),
    Setting('experts.memory_budget_mb', 0, 'of all loaded models [MB]; 0 = no limit', 'experts'),
    Setting('experts.keep_alive', -1.0, 'an idle expert stays loaded [s]; -1 = until another needs its place',
            'experts'),
    Setting('experts.max_seq_len', 8192, 'KV cache that all running answers share [tokens]', 'experts',
            'inference.context_tokens'),
    Setting('experts.confidence_threshold', 0.5, 'below it the router asks the fallback expert', 'router',
            'confidence_threshold'),
    Setting('experts.fallback', 'general', 'answers what is out of every domain', 'router', 'fallback_expert'),
    Setting('experts.replicas', 1, 'expert nodes on this machine'),

    Setting('inference.dynamic_batching', True, 'decode requests together', 'experts'),
    Setting('inference.max_batch_size', 32, 'answers decoded at once', 'experts'),
    Setting('inference.timeout_ms', 10, 'a lone request waits for company [ms]', 'experts'),
    Setting('inference.queue_limit', 64, 'requests that wait; more are refused', 'experts'),
    Setting('inference.use_kv_cache', True, 'begin prompts with what earlier ones left in the cache', 'experts'),
    Setting('inference.cache_enabled', True, 'answer an exact repetition from memory', 'experts'),
    Setting('inference.cache_size', 1000, 'answers remembered', 'experts'),
    Setting('inference.threads', 0, 'threads that decode; 0 = one per core', 'experts'),
    Setting('inference.n_gpu_layers', 0, 'layers on the GPU, with a CUDA build', 'experts'),
    Setting('inference.use_mmap', True, 'map model files instead of reading them', 'experts'),
    Setting('inference.use_mlock', False, 'keep models from being swapped out', 'experts'),

    Setting('database.host', '', 'Postgres server; empty = the embedded one', 'registry'),
    Setting('database.port', 5432, 'its port', 'registry'),
    Setting('database.name', 'moe_db', 'database', 'registry'),
    Setting('database.user', 'moe_user', 'role', 'registry'),
    Setting('database.password_file', '', 'file that holds the password and nothing else', 'registry'),
    Setting('database.timeout', 30.0, 'connect and statement timeout [s]', 'registry'),
    Setting('database.pool_size', 5, 'connections kept open', 'registry'),

    Setting('system.log_level', 'info', 'of every node', choices=LOG_LEVELS),
    Setting('system.log_format', 'text', 'of logs/app.log', choices=LOG_FORMATS),
    Setting('system.processes', {}, 'nice, cpu_affinity and threads by process, see below'),
)
