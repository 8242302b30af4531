"""API keys: shown once, kept as salted hashes, written to a file for whoever checks them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from moe_experts.registry.entities import ApiKey
from moe_experts.registry.errors import RegistryError
from moe_experts.registry.tables import NOW, ApiKeyRow
from moe_experts.registry.transactions import Transactions

SCOPES = ('inference', 'manage', 'hardware')


class ApiKeys:
    """Operations on API keys.

    Args:
        path: JSON file with the hashes of the keys that are valid, for the gateway on this machine: it must be able to
            check a key while the registry or the database is away.
    """

    def __init__(self, transactions: Transactions, path: Path) -> None:
        self._begin = transactions.begin
        self._read = transactions.read
        self._path = path

    def create(self, name: str, scopes: Sequence[str], actor: str) -> tuple[str, int]:
        """Make a key; returns it (this once) and its id. Raises RegistryError."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            raise RegistryError(f'{"No scope" if not scopes else "Unknown scope " + ", ".join(unknown)}; '
                                f'there are {", ".join(SCOPES)}.')
        if not name.strip() or len(name) > 63 or '\0' in name:
            raise RegistryError('An API key needs a name of 1 to 63 characters.')
        salt = secrets.token_hex(16)
        with self._begin(actor) as session:
            row = ApiKeyRow(name=name, scopes=','.join(sorted(set(scopes))), salt=salt, digest='', actor=actor)
            session.add(row)
            session.flush()
            key = f'moe_{row.id}_{secrets.token_urlsafe(32)}'
            row.digest = digest(salt, key)
        self.publish()
        return key, row.id

    def page(self) -> list[ApiKey]:
        """Every key, revoked ones as well."""
        with self._read() as session:
            return _entities(session)

    def revoke(self, key_id: int, actor: str) -> None:
        """Make a key worthless; raises RegistryError where it is not there."""
        with self._begin(actor) as session:
            row = session.get(ApiKeyRow, key_id)
            if row is None:
                raise RegistryError(f'There is no API key {key_id}; list the keys.')
            if row.revoked_at is None:
                row.revoked_at = NOW
        self.publish()

    def publish(self) -> None:
        """Write the file anew."""
        keys = [{'id': key.id, 'name': key.name, 'scopes': key.scopes.split(','), 'salt': key.salt,
                 'sha256': key.digest} for key in self.page() if not key.revoked]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f'{self._path.name}.{os.getpid()}.part')
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, 'w') as file:
            json.dump({'keys': keys}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def digest(salt: str, key: str) -> str:
    """Hex SHA-256 of salt and key; the key has 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(bytes.fromhex(salt) + key.encode()).hexdigest()


def _entities(session: Session) -> list[ApiKey]:
    rows = session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.id))
    return [ApiKey(row.id, row.name, row.scopes, row.salt, row.digest, row.revoked_at is not None) for row in rows]
