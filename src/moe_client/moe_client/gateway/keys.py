"""Who may do what: API keys, as the registry leaves them in a file for whoever has to check them."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_client.errors import Forbidden, Unauthorized

SCOPES = ('inference', 'manage', 'hardware')


@dataclass(frozen=True)
class Identity:
    """Who asks; id 0 = somebody on this machine without a key, who may do everything."""

    id: int
    name: str
    scopes: tuple[str, ...]

    def demand(self, scope: str) -> None:
        """Raise Forbidden where the scope is missing."""
        if scope not in self.scopes:
            raise Forbidden(f'The API key "{self.name}" lacks the scope {scope}; '
                            f'`moe api-key create NAME --scope {scope}` makes one that has it.')


LOCAL = Identity(0, 'local', SCOPES)


class KeyRing:
    """Checks keys against $MOE_HOME/run/api_keys.json, which is read again when it was replaced.

    The file has salted digests, never keys; whoever is revoked is not in it any more.

    Args:
        required: also those on this machine need a key.
    """

    def __init__(self, path: Path, required: bool) -> None:
        self._path, self._required = path, required
        self._stamp = 0
        self._keys: list[dict[str, Any]] = []
        self._known: dict[str, Identity] = {}

    def check(self, authorization: str, key: str = '') -> Identity:
        """Who shows this Authorization header, or this key; raises Unauthorized."""
        if not key and authorization:
            kind, _, key = authorization.partition(' ')
            if kind.lower() != 'bearer' or not key.strip():
                raise Unauthorized('The Authorization header has to be "Bearer KEY".')
        key = key.strip()
        if not key:
            if self._required:
                raise Unauthorized('This gateway demands an API key: send it as "Authorization: Bearer KEY"; '
                                   '`moe api-key create NAME` makes one.')
            return LOCAL
        self._read()
        if key not in self._known:
            self._known[key] = self._find(key)
        return self._known[key]

    def _find(self, key: str) -> Identity:
        # a key names its row, moe_<id>_<secret>; others are compared with every row
        part = key.split('_')[1] if key.count('_') >= 2 else ''
        for row in self._keys:
            if part and str(row['id']) != part:
                continue
            digest = hashlib.sha256(bytes.fromhex(row['salt']) + key.encode('utf-8', 'replace')).hexdigest()
            if hmac.compare_digest(digest, row['sha256']):
                return Identity(int(row['id']), str(row['name']), tuple(row['scopes']))
        if not self._required and not self._keys:
            # clients that cannot go without a key send any; where none exists there is nothing to be wrong about
            return LOCAL
        raise Unauthorized('The API key is unknown or revoked; `moe api-key list` shows which there are.')

    def _read(self) -> None:
        try:
            stamp = self._path.stat().st_mtime_ns
        except OSError:
            stamp = 0
        if stamp != self._stamp:
            self._stamp = stamp
            self._known.clear()
            try:
                self._keys = list(json.loads(self._path.read_text())['keys']) if stamp else []
            except (OSError, ValueError, KeyError, TypeError):
                self._keys, self._stamp = [], 0
        if len(self._known) > 1000:
            self._known.clear()
