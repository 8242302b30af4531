"""Errors of the training core; `.code` is the number in moe_interfaces/msg/ErrorCode."""

from __future__ import annotations


class TrainingError(Exception):
    """Training or conversion cannot go on; the message says what, where and what to do."""

    code = 2000


class DatasetError(TrainingError):
    """The dataset is missing, empty or has bad rows."""

    code = 2001


class ExpertError(TrainingError):
    """The expert does not exist."""

    code = 1000


class RequestError(TrainingError):
    """The settings can never work as they are."""

    code = 3004


class CancelledError(TrainingError):
    """The job was cancelled; what was reached is saved."""

    code = 3003


def error_of(code: int, message: str) -> TrainingError:
    """The error that a worker or the registry reported by its code; a code without a kind of its own is kept."""
    kinds = {kind.code: kind for kind in (DatasetError, ExpertError, RequestError, CancelledError)}
    error = kinds.get(code, TrainingError)(message)
    error.code = code
    return error
