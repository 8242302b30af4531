"""The LoRA adapters of a base: which are loaded, at what scale, and since which change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moe_experts.engines.engine import EngineError
from moe_experts.engines.prefix_cache import Owner
from moe_experts.engines.runtime import Runtime


@dataclass(frozen=True)
class _Adapter:
    """The revision changes with everything that changes what it computes."""

    scale: float
    revision: int


class Adapters:
    """Adapters in a runtime by key; '' is the bare base, which is always there."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loaded = {'': _Adapter(1.0, 0)}
        self._revision = 0

    def __contains__(self, key: str) -> bool:
        return key in self._loaded

    def load(self, key: str, path: Path, scale: float) -> None:
        """Load one; raises EngineError (1001)."""
        self._runtime.load_adapter(key, path)
        self.rescale(key, scale)

    def rescale(self, key: str, scale: float) -> None:
        """Apply one with another scale from now on."""
        self._revision += 1
        self._loaded[key] = _Adapter(scale, self._revision)

    def unload(self, key: str) -> None:
        """Free one."""
        del self._loaded[key]
        self._runtime.unload_adapter(key)

    def scale(self, key: str) -> float:
        """The scale that one is applied with."""
        return self._loaded[key].scale

    def owner(self, key: str, scale: float = 1.0) -> Owner:
        """Whose cells those are that one computes now; raises EngineError (1001)."""
        if key not in self._loaded:
            raise EngineError(f'Adapter {key} is not loaded.', 1001)
        return key, self._loaded[key].revision, scale

    def computes_as(self, owner: Owner) -> bool:
        """Whether nothing has changed since an owner's cells were computed."""
        found = self._loaded.get(owner[0])
        return found is not None and found.revision == owner[1]
