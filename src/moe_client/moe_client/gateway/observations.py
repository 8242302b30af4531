"""What the nodes publish, as last seen."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from moe_client.errors import MoeError
from moe_client.gateway.backend import Backend
from moe_client.transport import Values

STALE_S = 5.0  # an expert node says something each second
NODES = ('registry', 'experts', 'router', 'training', 'servos', 'motion', 'imu', 'camera')
NEEDED = ('registry', 'experts', 'router')  # without one of these nothing is answered
STATS_PERIOD_S = 5.0
JOBS_KEPT = 20
Tell = Callable[[str, str, Values], None]


class Observations:
    """Listens to the graph; every method may be called from any thread.

    Args:
        tell: is given (channel, event, data) of what people may want to watch, in the thread that listens.
    """

    def __init__(self, backend: Backend, tell: Tell = lambda _channel, _event, _data: None) -> None:
        self._backend, self._tell = backend, tell
        self._serving: dict[str, tuple[float, Values]] = {}
        self._servos: tuple[float, Values] | None = None
        self._training: dict[int, Values] = {}
        self._stats: Values = {}
        self._stop, self._begun = threading.Event(), time.monotonic()
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(backend.listening('ServingStatus', 'experts/status', self._on_serving))
        self._stack.enter_context(backend.listening('ServoStates', 'servo_states', self._on_servos))
        self._stack.enter_context(backend.listening_to_progress('training.train', self._on_training))
        self._thread = threading.Thread(target=self._ask, daemon=True, name='router statistics')
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._stop.set()
        self._stack.close()
        self._thread.join(timeout=STATS_PERIOD_S)

    def _on_serving(self, status: Values) -> None:
        self._serving[status['node']] = (time.monotonic(), status)
        self._tell('inference', 'serving', status)

    def _on_servos(self, states: Values) -> None:
        self._servos = (time.monotonic(), states)
        self._tell('hardware', 'servos', states)

    def _on_training(self, progress: Values) -> None:
        self._training[progress['job_id']] = progress
        for job in sorted(self._training)[:-JOBS_KEPT]:
            del self._training[job]
        self._tell('training', 'progress', progress)

    def _ask(self) -> None:
        while not self._stop.wait(STATS_PERIOD_S):
            with contextlib.suppress(MoeError):
                self._stats = self._backend.call('router.stats', {}, 2.0)

    def serving(self) -> list[Values]:
        """The state of every expert node that is alive."""
        return [status for arrived, status in list(self._serving.values()) if time.monotonic() - arrived < STALE_S]

    def servos(self) -> Values | None:
        """The state of the servos; None = nothing was heard of them lately."""
        known = self._servos
        return known[1] if known and time.monotonic() - known[0] < STALE_S else None

    def training(self) -> dict[int, Values]:
        """The last progress of each job."""
        return dict(self._training)

    def router_stats(self) -> Values:
        """What the router counted; {} = it has not answered yet."""
        return self._stats

    def nodes(self) -> dict[str, bool]:
        """Every node of the suite, and whether it is on the graph."""
        present = set(self._backend.node_names())
        return {name: name in present for name in NODES}

    def health(self) -> dict[str, Any]:
        """The suite's health: "ok", "degraded" (something can be done without) or "down", and each component."""
        components: dict[str, Any] = {name: {'status': 'up' if alive else 'down'}
                                      for name, alive in self.nodes().items()}
        serving = self.serving()
        if components['experts']['status'] == 'up' and not serving and time.monotonic() - self._begun > STALE_S:
            components['experts'] = {'status': 'down', 'reason': f'said nothing for {STALE_S:g} s'}
        for status in serving:
            components['experts'].update(
                loaded=[row['expert'] for row in status['experts'] if row['state'] in ('ready', 'busy')],
                queue_depth=status['queue_depth'], running=status['running'], memory_bytes=status['memory_bytes'])
        if states := self.servos():
            components['servos'].update(estop=states['estop'], online=sum(row['online'] for row in states['servos']),
                                        of=len(states['servos']))
        down = [name for name, row in components.items() if row['status'] == 'down']
        overall = 'down' if any(name in NEEDED for name in down) else 'degraded' if down else 'ok'
        return {'status': overall, 'down': down, 'components': components}
