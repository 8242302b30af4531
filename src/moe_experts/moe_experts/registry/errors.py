"""Errors of the registry; codes are those of moe_interfaces/msg/ErrorCode."""

from __future__ import annotations


class RegistryError(Exception):
    """A request that the registry refuses, in one sentence."""

    code = 3004


class ExpertNotFound(RegistryError):
    """No expert has this id or name."""

    code = 1000

    def __init__(self, expert_id: int, name: str = '') -> None:
        super().__init__(f'Expert with name={name} not found' if name and not expert_id
                         else f'Expert with id={expert_id} not found')


class ExpertNotReady(RegistryError):
    """The expert has no such version."""

    code = 1001


class CreationFailed(RegistryError):
    """A bad definition or artifact."""

    code = 1002


class NameTaken(RegistryError):
    """Another expert has this name."""

    code = 1003


class StaleVersion(RegistryError):
    """What the caller read has changed since."""

    code = 1004


class DigestMismatch(RegistryError):
    """A file is not the one that was registered."""

    code = 1005


class DatabaseUnavailable(RegistryError):
    """Postgres does not answer."""

    code = 5000
