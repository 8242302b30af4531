"""Client: the SDK, the moe command and the HTTP gateway.

`from moe_client import Client` is the SDK; rclpy is imported by a client that goes over ROS and not before.
"""

from __future__ import annotations

from moe_client.client import Client
from moe_client.errors import (
    Cancelled,
    DatasetInvalid,
    DigestMismatch,
    ExpertCreationFailed,
    ExpertNotFound,
    ExpertNotReady,
    Forbidden,
    HardwareError,
    InferenceFailed,
    InvalidRequest,
    MoeError,
    NameTaken,
    Overloaded,
    RateLimited,
    SafetyViolation,
    StaleVersion,
    Timeout,
    TrainingFailed,
    Unauthorized,
    Unavailable,
)
from moe_client.expert_context import ExpertContext
from moe_client.types import Chunk, ExpertInfo, Generation, Route, RouterStats, TrainingJob, TrainingProgress

__all__ = [
    'Cancelled', 'Chunk', 'Client', 'DatasetInvalid', 'DigestMismatch', 'ExpertContext', 'ExpertCreationFailed',
    'ExpertInfo', 'ExpertNotFound', 'ExpertNotReady', 'Forbidden', 'Generation', 'HardwareError', 'InferenceFailed',
    'InvalidRequest', 'MoeError', 'NameTaken', 'Overloaded', 'RateLimited', 'Route', 'RouterStats',
    'SafetyViolation', 'StaleVersion', 'Timeout', 'TrainingFailed', 'TrainingJob', 'TrainingProgress',
    'Unauthorized', 'Unavailable',
]
