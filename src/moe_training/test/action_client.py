"""An action client that meets its server first, and knows when it is gone. The same file wherever goals are sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.action.client import ActionClient, ClientGoalHandle
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID

RESEND_S = 1.0
LOOK_S = 1.0  # between two looks at the graph; one takes 0.15 ms
ACCEPT_S = 10.0  # a server accepts within milliseconds
POLL_S = 0.01
NO_GOAL = UUID(uuid=[1] * 16)  # goals' ids are random; all zeros would mean every goal


class MeetingActionClient(ActionClient):  # type: ignore[type-arg]  # Jazzy's takes no types
    """An action client for servers that start and die at any time.

    A server that has just started may not have discovered this client. rmw_fastrtps gives up an answer after 100 ms for
    want of a reader: the goal would run, and nobody would ever hear that it was accepted. So a server is asked first to
    cancel a goal that never was, until it answers that, and counts as ready from then on.

    One that was killed stays in the graph until its lease ends, 20 s, and its next life is there long before. Nobody
    says then that the goal is lost; watch() does.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._met = False
        self._greetings: list[Future[Any]] = []
        self._servers: frozenset[bytes] = frozenset()
        self._greeted_at = self._looked_at = float('-inf')
        super().__init__(*arguments, **options)

    def servers(self) -> frozenset[bytes]:
        """GIDs of what serves the action; each life of a node has its own."""
        found = self._node.get_publishers_info_by_topic(f'{self._action_name}/_action/status')
        return frozenset(bytes(server.endpoint_gid) for server in found)

    def server_is_ready(self, look: bool = False) -> bool:
        """Whether a server is there and has answered this client; asked again and again, it sees to that.

        With `look`, which a goal is worth, also whether that server is still the one; otherwise as of a second ago.
        """
        if not super().server_is_ready():
            self._forget()
            return False
        now = time.monotonic()
        if look or now - self._looked_at > LOOK_S:
            self._looked_at, before, self._servers = now, self._servers, self.servers()
            if self._servers - before:
                self._forget()
        if not self._met and now - self._greeted_at > RESEND_S:
            self._greeted_at = now
            nobody = ClientGoalHandle(self, NO_GOAL, self._action_type.Impl.SendGoalService.Response())
            greeting = self._cancel_goal_async(nobody)
            self._greetings.append(greeting)
            greeting.add_done_callback(self._hear)
        return self._met

    def wait_for_server(self, timeout_sec: float | None = None) -> bool:
        """As rclpy's, which looks four times a second only; another thread must spin the node."""
        give_up = float('inf') if timeout_sec is None else time.monotonic() + timeout_sec
        while not (ready := self.server_is_ready(look=True)) and self._node.context.ok() and time.monotonic() < give_up:
            time.sleep(POLL_S)
        return ready

    def watch(self) -> Callable[[], bool]:
        """Called just before a goal is sent, returns what says later whether that goal went down with its server.

        A goal that nobody has accepted within ACCEPT_S is lost as well, but only its sender knows of that.
        """
        sent_to, looked_at = self.servers(), time.monotonic()

        def lost() -> bool:
            nonlocal looked_at
            if time.monotonic() - looked_at < LOOK_S:
                return False
            looked_at, servers = time.monotonic(), self.servers()
            return not servers & sent_to or bool(servers - sent_to)

        return lost

    def _hear(self, greeting: Future[Any]) -> None:
        if not greeting.cancelled():
            self._met = True

    def _forget(self) -> None:
        """What a server that went away was asked is not answered any more, least of all by the next one."""
        self._met, self._greeted_at = False, float('-inf')
        greetings, self._greetings = self._greetings, []
        for greeting in greetings:
            greeting.cancel()
