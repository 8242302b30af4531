"""What the router knows of the registry, kept in a file, so that it serves on while the registry is away."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from moe_router.sessions import Trial
from moe_router.whole_file import replacing

_ANSWERING = ('ready', 'training')


@dataclass(frozen=True)
class Row:
    """One expert; fields as in moe_interfaces/Expert, `base` is the digest of the base that its champion stands on."""

    status: str
    version: int
    routable: bool
    category: str = ''
    base_expert: str = ''
    base: str = ''

    @property
    def answers(self) -> bool:
        """Whether it has something that can answer and may."""
        return self.status in _ANSWERING and self.version > 0


@dataclass(frozen=True)
class Table:
    """All experts by name, running trials by the name of their control."""

    experts: dict[str, Row] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)

    def routable(self) -> set[str]:
        """Experts that the router may choose and that can answer."""
        return {name for name, row in self.experts.items() if row.answers and row.routable}

    def role(self, name: str) -> str:
        """The expert that one stands for: a candidate for its base, every other for itself."""
        row = self.experts.get(name)
        return row.base_expert or name if row is not None else name

    def waiting(self) -> list[str]:
        """Experts that may answer once they have a version."""
        return sorted(name for name, row in self.experts.items() if not row.version and row.status != 'disabled')

    def categories(self) -> dict[str, str]:
        """Category of each expert; one without a category is its own."""
        return {name: row.category or name for name, row in self.experts.items()}

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        with replacing(path) as file:
            file.write(json.dumps({'experts': {name: asdict(row) for name, row in self.experts.items()},
                                   'trials': [asdict(trial) for trial in self.trials.values()]}).encode())

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a table; an empty one where there is none that can be read."""
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            return cls({name: Row(**row) for name, row in content['experts'].items()},
                       {trial['control']: Trial(**trial) for trial in content['trials']})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()
