"""The registry as a whole: its parts over one database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moe_experts.registry.ab_tests import AbTests
from moe_experts.registry.api_keys import ApiKeys
from moe_experts.registry.database import Database
from moe_experts.registry.entities import Expert, Version
from moe_experts.registry.errors import CreationFailed
from moe_experts.registry.events import Events
from moe_experts.registry.experts import Experts
from moe_experts.registry.jobs import Jobs
from moe_experts.registry.maintenance import Maintenance
from moe_experts.registry.notes import Notes
from moe_experts.registry.outcomes import Outcomes
from moe_experts.registry.routes import Routes
from moe_experts.registry.transactions import Transactions, find
from moe_experts.registry.versions import Versions


class Registry:
    """Every operation, by what it is about.

    Args:
        database: an open database.
        home: MOE_HOME; artifacts/ and run/api_keys.json are below it.
    """

    def __init__(self, database: Database, home: Path) -> None:
        transactions = Transactions(database.engine, database.reading)
        self._begin = transactions.begin
        artifacts = home / 'artifacts'
        self.experts = Experts(transactions)
        self.versions = Versions(transactions, artifacts)
        self.events = Events(transactions)
        self.jobs = Jobs(transactions)
        self.routes = Routes(transactions)
        self.notes = Notes(transactions)
        self.outcomes = Outcomes(transactions)
        self.ab_tests = AbTests(transactions)
        self.api_keys = ApiKeys(transactions, home / 'run' / 'api_keys.json')
        self.maintenance = Maintenance(database, artifacts)

    def create(self, definition: dict[str, Any], size: str, version: Version | None, actor: str,
               reason: str = '') -> Expert:
        """Create an expert in one transaction: empty, to be trained from scratch in a size, or with its first version.

        Raises CreationFailed, NameTaken, DigestMismatch, RegistryError.
        """
        if size and version:
            raise CreationFailed('An expert is made from an artifact or from scratch in a size, not both.')
        with self._begin(actor, reason) as session:
            row = self.experts.create_within(session, definition)
            if size:
                self.versions.resize_within(session, row, size)
            if version:
                self.versions.register_within(session, row.name, version, 'champion')
                row = find(session, row.id, '')
            return Expert.of(row)
