"""What whoever looks after the suite needs: the registry's upkeep and API keys."""

from __future__ import annotations

import json

from moe_client.experts import ACTOR
from moe_client.transport import Transport, Values


class Registry:
    """Upkeep of the database and the artifacts."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def maintain(self, operation: str) -> Values:
        """Run verify, gc, slow_queries, vacuum, locks or disconnect; returns columns, rows and ok."""
        report = self._transport.call('registry.maintain', {'operation': operation, 'actor': ACTOR})['report']
        table: Values = json.loads(report)
        return table


class Keys:
    """API keys of the gateway."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, scopes: list[str]) -> tuple[int, str]:
        """Make a key; returns its id and the key itself, which nobody shows again."""
        values = self._transport.call('keys.create', {'name': name, 'scopes': scopes, 'actor': ACTOR})
        return values['id'], values['key']

    def list(self) -> list[Values]:
        """Every key without its secret."""
        values = self._transport.call('keys.list', {})
        return [{'id': number, 'name': name, 'scopes': scopes, 'revoked': revoked} for number, name, scopes, revoked in
                zip(values['ids'], values['names'], values['scopes'], values['revoked'])]

    def revoke(self, number: int) -> None:
        """End a key."""
        self._transport.call('keys.revoke', {'id': number, 'actor': ACTOR})
