"""Errors of the SDK: one class per code of moe_interfaces/msg/ErrorCode that callers tell apart."""

from __future__ import annotations


class MoeError(Exception):
    """A request was answered with an error.

    Attributes:
        code: a constant of moe_interfaces/msg/ErrorCode.
        retry_after_s: when to come back after OVERLOADED or RATE_LIMITED [s]; 0 = unknown.
    """

    code = 0

    def __init__(self, message: str, code: int | None = None, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.retry_after_s = retry_after_s


class ExpertNotFound(MoeError):
    """No expert has this id or name."""

    code = 1000


class ExpertNotReady(MoeError):
    """The expert is known, but nothing of it can answer now."""

    code = 1001


class ExpertCreationFailed(MoeError):
    """The definition or the artifact is bad."""

    code = 1002


class NameTaken(MoeError):
    """Another expert has this name."""

    code = 1003


class StaleVersion(MoeError):
    """The row changed since it was read; read it again."""

    code = 1004


class DigestMismatch(MoeError):
    """The file is not the one that was registered."""

    code = 1005


class TrainingFailed(MoeError):
    """A training job ended without a version."""

    code = 2000


class DatasetInvalid(MoeError):
    """The dataset cannot be trained on."""

    code = 2001


class InferenceFailed(MoeError):
    """The expert failed while it answered."""

    code = 3000


class Timeout(MoeError, TimeoutError):
    """The deadline passed."""

    code = 3001


class Overloaded(MoeError):
    """The queue is full; see retry_after_s."""

    code = 3002


class Cancelled(MoeError):
    """The request was cancelled."""

    code = 3003


class InvalidRequest(MoeError):
    """The request can never succeed as it is."""

    code = 3004


class HardwareError(MoeError):
    """A device is absent, silent or reports a fault."""

    code = 4000


class SafetyViolation(MoeError):
    """A motion was refused before anything moved."""

    code = 4001


class Unavailable(MoeError):
    """A node of the suite, its database or its gateway does not answer."""

    code = 5000


class Unauthorized(MoeError):
    """No API key, or one that is unknown or revoked."""

    code = 6000


class Forbidden(MoeError):
    """The API key lacks the scope."""

    code = 6001


class RateLimited(MoeError):
    """Too many requests; see retry_after_s."""

    code = 6002


_BY_CODE: dict[int, type[MoeError]] = {
    kind.code: kind for kind in (
        ExpertNotFound, ExpertNotReady, ExpertCreationFailed, NameTaken, StaleVersion, DigestMismatch, TrainingFailed,
        DatasetInvalid, InferenceFailed, Timeout, Overloaded, Cancelled, InvalidRequest, HardwareError,
        SafetyViolation, Unavailable, Unauthorized, Forbidden, RateLimited)}


def raise_for(code: int, message: str, retry_after_s: float = 0.0) -> None:
    """Raise the error that belongs to a response's error_code; 0 is success."""
    if code:
        raise _BY_CODE.get(code, MoeError)(message or f'error {code}', code, retry_after_s)
