"""Jobs that wait for their turn, in order; the registry knows them too, so a restart loses none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from rclpy.action.server import ServerGoalHandle

from moe_interfaces.action import TrainExpert
from moe_interfaces.msg import TrainingJob
from moe_training.errors import TrainingError
from moe_training.job import Job

POLL_S = 0.2


@dataclass(eq=False)
class Entry:
    """A job with its row in the registry and, where someone waits for it, the goal."""

    row: TrainingJob
    job: Job
    promote: bool
    handle: ServerGoalHandle | None = None
    result: TrainExpert.Result = field(default_factory=TrainExpert.Result)
    ended: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)

    def cancelled(self) -> bool:
        """Whether someone asked for its end."""
        return self.stopped.is_set() or (self.handle is not None and self.handle.is_cancel_requested)

    def execute(self) -> None:
        """Take the goal into execution; its result is given when the entry has ended."""
        if self.handle is not None:
            self.handle.execute(self._conclude)

    def _conclude(self, handle: ServerGoalHandle) -> TrainExpert.Result:
        self.ended.wait()
        if not self.result.error_code:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return self.result

    def fail(self, error: TrainingError) -> None:
        """End with an error."""
        self.result.error_code, self.result.error_msg = error.code, str(error)
        self.ended.set()


class JobQueue:
    """Runs entries one after another, `at_once` of them side by side.

    Args:
        run: works on an entry and ends it; never raises.
        drop: ends an entry that was cancelled while it waited.
    """

    def __init__(self, at_once: int, run: Callable[[Entry], None], drop: Callable[[Entry], None]) -> None:
        self._run, self._drop = run, drop
        self._waiting: list[Entry] = []
        self._running: list[Entry] = []
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [threading.Thread(target=self._work, name=f'jobs {number}') for number in range(at_once)]
        self._threads.append(threading.Thread(target=self._watch, name='waiting jobs'))
        for thread in self._threads:
            thread.start()

    def add(self, entry: Entry) -> None:
        """Put an entry behind the others."""
        with self._changed:
            self._waiting.append(entry)
            self._changed.notify_all()  # the one that is woken alone may be _watch

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                entry = self._waiting.pop(0)
                self._running.append(entry)
            entry.execute()
            self._run(entry)
            with self._changed:
                self._running.remove(entry)

    def rows(self) -> tuple[list[TrainingJob], list[TrainingJob]]:
        """Those of the jobs that run, and of those that wait, in order."""
        with self._changed:
            return [entry.row for entry in self._running], [entry.row for entry in self._waiting]

    def _watch(self) -> None:
        """End those who were cancelled before their turn."""
        while not self._closing:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, timeout=POLL_S)
                gone = [entry for entry in self._waiting if entry.cancelled()]
                self._waiting = [entry for entry in self._waiting if entry not in gone]
            for entry in gone:
                self._drop(entry)
                entry.execute()

    def close(self) -> list[Entry]:
        """Start nothing any more, wait for what runs; returns those who still waited."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        return self._waiting
