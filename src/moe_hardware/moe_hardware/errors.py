"""What can go wrong with the hardware, each with its code of moe_interfaces/msg/ErrorCode."""

from __future__ import annotations


class MotionError(Exception):
    """A command was not carried out; the text is one sentence: what, where, what to do."""

    code = 4000


class HardwareFault(MotionError):
    """A device is absent, silent or reports a fault (HARDWARE_ERROR)."""

    code = 4000


class SafetyViolation(MotionError):
    """A command was refused before a byte was written (SAFETY_VIOLATION)."""

    code = 4001


class InvalidCommand(MotionError):
    """A command can never succeed as it is (INVALID_REQUEST)."""

    code = 3004


class MotionCancelled(MotionError):
    """A motion was ended by its caller or by a newer command (CANCELLED)."""

    code = 3003


def error_of(code: int, sentence: str) -> MotionError:
    """The error that another node reported by its code; one not known here is a HardwareFault."""
    kinds = (SafetyViolation, InvalidCommand, MotionCancelled)
    return next((kind(sentence) for kind in kinds if kind.code == code), HardwareFault(sentence))
