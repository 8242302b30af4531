"""A process that changes the registry until it is killed; imports little, as a hundred of them are started."""

from __future__ import annotations

from model_files import write_model

from moe_experts.registry.database import Database, Settings
from moe_experts.registry.entities import Version
from moe_experts.registry.registry import Registry


def work(url, home, seed, begun, times=1_000_000):
    """Create, register, promote and roll back until killed."""
    database = Database(home, Settings(url))
    registry = Registry(database, home)
    begun.set()
    for index in range(times):
        name = f'e{seed}_{index}'
        model = write_model(home / 'made' / f'{name}.gguf', seed * 100 + index)
        registry.create({'name': name, 'domain': 'test'}, '', Version(str(model)), 'crash')
        registry.experts.create({'name': f'{name}_v2', 'base_expert': name}, 'crash')
        registry.versions.register(f'{name}_v2', Version(str(model)), 'champion', 'crash')
        registry.versions.promote(f'{name}_v2', 'crash')
        registry.versions.rollback(name, 'crash')
        registry.experts.delete(0, f'{name}_v2', True, 'crash')
