"""Goals to servers that start and die at any time. The same file wherever goals are sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.action.client import ActionClient, ClientGoalHandle
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID

SERVICE_QOS = QoSProfile(depth=100)  # rcl's default of 10 loses calls that arrive together
ACTION_QOS: dict[str, Any] = {f'{part}_service_qos_profile': SERVICE_QOS for part in ('goal', 'result', 'cancel')}
FEEDBACK_QOS = QoSProfile(depth=1000)  # every token of every goal of an action comes on one topic
RESEND_S = 1.0
LOOK_S = 1.0  # between two looks at the graph; one takes 0.15 ms
ACCEPT_S = 10.0  # a server accepts within milliseconds
POLL_S = 0.01
NO_GOAL = UUID(uuid=[1] * 16)  # goals' ids are random; all zeros would mean every goal
Put = Callable[[tuple[str, Any]], None]


class MeetingActionClient(ActionClient):  # type: ignore[type-arg]  # Jazzy's takes no types
    """An action client that meets its server before it sends a goal.

    A server that has just started may not have discovered this client. rmw_fastrtps gives up an answer after 100 ms for
    want of a reader: the goal would run, and nobody would ever hear that it was accepted. So a server is asked first to
    cancel a goal that never was, until it answers that, and counts as ready from then on.

    Jazzy's client loses an answer that is taken before the thread that asked has put down what for. Nothing is taken
    while somebody asks.

    Args:
        name: of the action, as the node resolves it.
    """

    def __init__(self, node: Node, interface: Any, name: str) -> None:
        self._asking = threading.RLock()
        self._met = False
        self._greetings: list[Future[Any]] = []
        self._greeted_at = self._looked_at = float('-inf')
        self._status_topic = f'{name}/_action/status'
        self._no_answer = interface.Impl.SendGoalService.Response()
        self.servers: frozenset[bytes] = frozenset()  # GIDs, as of the last look; each life of a node has its own
        super().__init__(node, interface, name, feedback_sub_qos_profile=FEEDBACK_QOS, **ACTION_QOS)

    def send_goal_async(self, *arguments: Any, **options: Any) -> Any:
        """As rclpy's."""
        with self._asking:
            return super().send_goal_async(*arguments, **options)

    def _cancel_goal_async(self, goal_handle: Any) -> Any:
        with self._asking:
            return super()._cancel_goal_async(goal_handle)

    def _get_result_async(self, goal_handle: Any) -> Any:
        with self._asking:
            return super()._get_result_async(goal_handle)

    def take_data(self) -> Any:
        """As rclpy's; called by the executor."""
        with self._asking:
            return super().take_data()

    def look(self) -> frozenset[bytes]:
        """What serves the action now; servers that are new have to be met."""
        found = self._node.get_publishers_info_by_topic(self._status_topic)
        before, self.servers = self.servers, frozenset(bytes(server.endpoint_gid) for server in found)
        self._looked_at = time.monotonic()
        if self.servers - before:
            self._forget()
        return self.servers

    def server_is_ready(self, look: bool = False) -> bool:
        """Whether a server is there and has answered this client; asked again and again, it sees to that.

        With `look`, which a goal is worth, also whether that server is still the one; otherwise as of a second ago.
        """
        if not super().server_is_ready():
            self._forget()
            return False
        if look or time.monotonic() - self._looked_at > LOOK_S:
            self.look()
        if not self._met and time.monotonic() - self._greeted_at > RESEND_S:
            self._greeted_at = time.monotonic()
            greeting = self._cancel_goal_async(ClientGoalHandle(self, NO_GOAL, self._no_answer))
            self._greetings.append(greeting)
            greeting.add_done_callback(self._hear)
        return self._met

    def wait_for_server(self, timeout_sec: float | None = None) -> bool:
        """As rclpy's, which looks four times a second only; another thread must spin the node."""
        give_up = float('inf') if timeout_sec is None else time.monotonic() + timeout_sec
        while not (ready := self.server_is_ready(look=True)) and self._node.context.ok() and time.monotonic() < give_up:
            time.sleep(POLL_S)
        return ready

    def _hear(self, greeting: Future[Any]) -> None:
        if not greeting.cancelled():
            self._met = True

    def _forget(self) -> None:
        """What a server that went away was asked is not answered any more, least of all by the next one."""
        self._met, self._greeted_at = False, float('-inf')
        greetings, self._greetings = self._greetings, []
        for greeting in greetings:
            greeting.cancel()


class SentGoal:
    """A goal from its sending on; what becomes of it is put as ('feedback' | 'result' | 'refused', message).

    A server that was killed stays in the graph until its lease ends, 20 s, and its next life is there long before that.
    Nobody says then that the goal is lost; lost() does.

    Args:
        client: whose server is ready, as of a look.
        put: called in the thread that spins.
    """

    def __init__(self, client: MeetingActionClient, goal: Any, put: Put) -> None:
        self._client, self._put, self._cancelled = client, put, False
        self._servers, self._at = client.servers, time.monotonic()
        self._looked_at = self._at
        self._handle: ClientGoalHandle[Any, Any, Any] | None = None
        client.send_goal_async(goal, feedback_callback=lambda message: put(('feedback', message.feedback))
                               ).add_done_callback(self._accepted)

    def _accepted(self, future: Any) -> None:
        handle = future.result()
        if not handle.accepted:
            self._put(('refused', None))
            return
        self._handle = handle
        if self._cancelled:
            handle.cancel_goal_async()
        handle.get_result_async().add_done_callback(lambda done: self._put(('result', done.result())))

    def cancel(self) -> None:
        """Cancel the goal, also one whose acceptance has not come yet."""
        self._cancelled = True
        if self._handle is not None:
            self._handle.cancel_goal_async()

    def lost(self) -> str:
        """What its server did so that nothing more will come; '' = it may. Asked while nothing comes."""
        now = time.monotonic()
        if self._handle is None and now - self._at > ACCEPT_S:
            return f'did not accept the goal within {ACCEPT_S:.0f} s'
        if now - self._looked_at > LOOK_S:
            self._looked_at, servers = now, self._client.look()
            if not servers & self._servers or servers - self._servers:
                return 'ended while it worked on the goal'
        return ''
