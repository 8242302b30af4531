"""A client's place on the ROS graph: one node, spun by one thread; blocking calls and asynchronous ones."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier

from moe_client.errors import Cancelled, Timeout, Unavailable
from moe_client.ros.action_client import LOOK_S, SERVICE_QOS, MeetingActionClient, Put, SentGoal

RESEND_S = 2.0
POLL_S = 0.01


def middleware() -> str:
    """Name of the RMW implementation in use."""
    name: str = get_rmw_implementation_identifier()
    return name


def _patience(deadline: float) -> float:
    """How long to wait for a goal's next message before its server is looked for [s]."""
    return max(0.0, min(LOOK_S, deadline - time.monotonic()))


class Inbox:
    """Where the spinning thread leaves what an asyncio task waits for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def put(self, item: tuple[str, Any]) -> None:
        """Leave an item; from any thread, also when nobody waits any more."""
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def get(self, timeout_s: float) -> tuple[str, Any]:
        """Take the next item; raises TimeoutError."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        async with asyncio.timeout(timeout_s):
            return await self._queue.get()


class Graph:
    """Services, actions and topics of the suite below one namespace.

    Args:
        namespace: of the suite, without slashes.
        name: of the node; '' = one of its own, without parameters.
        arguments: ROS arguments of the command line.
        ready_timeout_s: how long a call waits for a node that is starting or away [s].
        discovery_s: how long after this one's start it waits in any case: who has just come sees nobody yet [s].

    Every call raises Unavailable when nobody serves the name and Timeout when nobody answers in time.
    """

    def __init__(self, namespace: str = 'moe', name: str = '', arguments: Sequence[str] = (),
                 ready_timeout_s: float = 10.0, discovery_s: float = 0.0) -> None:
        self._ready_timeout_s = ready_timeout_s
        self._discovered_by = time.monotonic() + discovery_s
        self._context = Context()
        rclpy.init(args=list(arguments), context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node: Node = rclpy.create_node(
            name or f'client_{time.monotonic_ns() % 10**9}', namespace=namespace, context=self._context,
            enable_rosout=bool(name), start_parameter_services=bool(name), enable_logger_service=bool(name),
            parameter_overrides=[] if name else [Parameter('start_type_description_service', value=False)])
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, name='graph', daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException, ShutdownException):
            while not self._stop.is_set():
                # a thread that has heard enough destroys its subscription, at times while this one looks at it
                with contextlib.suppress(InvalidHandle):
                    self._executor.spin_once(timeout_sec=0.5)

    def close(self) -> None:
        """Leave the graph; the context goes when nobody spins in it any more."""
        self._stop.set()
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=2.0)
        self._context.try_shutdown()
        self.node.destroy_node()

    def _ready_by(self) -> float:
        return max(time.monotonic() + self._ready_timeout_s, self._discovered_by)

    def _service(self, interface: Any, name: str) -> Any:
        with self._lock:
            if name not in self._clients:
                self._clients[name] = self.node.create_client(interface, name, qos_profile=SERVICE_QOS)
            return self._clients[name]

    def _action(self, interface: Any, name: str) -> Any:
        with self._lock:
            if name not in self._clients:
                self._clients[name] = MeetingActionClient(self.node, interface, name)
            return self._clients[name]

    def call(self, interface: Any, name: str, request: Any, timeout_s: float = 10.0, again: bool = False,
             node: str = '') -> Any:
        """Call a service and wait for its response.

        With `again` the request is sent anew every RESEND_S: a node that was killed stays in the graph for a while, and
        what it was asked is lost. Only for requests that may be carried out twice.
        """
        client = self._service(interface, name)
        deadline = time.monotonic() + timeout_s
        if not self._wait(client.service_is_ready, min(deadline, self._ready_by())):
            raise self._away(client.srv_name, node)
        answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        with _Requests(client, request, answers.put) as requests:
            while (left := deadline - time.monotonic()) > 0.0:
                requests.send()
                with contextlib.suppress(queue.Empty):
                    return answers.get(timeout=min(left, RESEND_S) if again else left)[1]
        raise self._silent(client.srv_name)

    async def acall(self, interface: Any, name: str, request: Any, timeout_s: float = 10.0, again: bool = False,
                    node: str = '') -> Any:
        """As call()."""
        client = self._service(interface, name)
        deadline = time.monotonic() + timeout_s
        if not await self._await(client.service_is_ready, min(deadline, self._ready_by())):
            raise self._away(client.srv_name, node)
        inbox = Inbox()
        with _Requests(client, request, inbox.put) as requests:
            while (left := deadline - time.monotonic()) > 0.0:
                requests.send()
                with contextlib.suppress(TimeoutError):
                    return (await inbox.get(min(left, RESEND_S) if again else left))[1]
        raise self._silent(client.srv_name)

    def stream(self, interface: Any, name: str, goal: Any, timeout_s: float = 120.0,
               node: str = '') -> Generator[tuple[str, Any], None, None]:
        """Send a goal; yields ('feedback', message) and at the end ('result', message).

        Closing the iterator before its end cancels the goal.
        """
        client = self._action(interface, name)
        if not self._wait(lambda: client.server_is_ready(look=True), self._ready_by()):
            raise self._away(name, node)
        deadline = time.monotonic() + timeout_s
        arrivals: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        sent = SentGoal(client, goal, arrivals.put)
        kind = ''
        try:
            while kind != 'result':
                try:
                    kind, message = arrivals.get(timeout=_patience(deadline))
                except queue.Empty:
                    self._check_on(name, sent, deadline, timeout_s)
                    continue
                yield kind, self._checked(name, kind, message)
        finally:
            if kind != 'result':
                sent.cancel()

    async def astream(self, interface: Any, name: str, goal: Any, timeout_s: float = 120.0,
                      node: str = '') -> AsyncGenerator[tuple[str, Any], None]:
        """As stream(); cancelling the task that reads it cancels the goal."""
        client = self._action(interface, name)
        if not await self._await(lambda: client.server_is_ready(look=True), self._ready_by()):
            raise self._away(name, node)
        deadline = time.monotonic() + timeout_s
        inbox = Inbox()
        sent = SentGoal(client, goal, inbox.put)
        kind = ''
        try:
            while kind != 'result':
                try:
                    kind, message = await inbox.get(_patience(deadline))
                except TimeoutError:
                    self._check_on(name, sent, deadline, timeout_s)
                    continue
                yield kind, self._checked(name, kind, message)
        finally:
            if kind != 'result':
                sent.cancel()

    @staticmethod
    def _checked(name: str, kind: str, message: Any) -> Any:
        if kind == 'refused':
            raise Unavailable(f'The action {name} refused the goal; it is shutting down or still starting.')
        if kind == 'feedback':
            return message
        if message.status == GoalStatus.STATUS_UNKNOWN:
            raise Cancelled(f'The action {name} lost the goal.')
        return message.result

    def _away(self, name: str, node: str) -> Unavailable:
        if node in self.node.get_node_names():
            return Unavailable(f'Nobody serves {name}: the {node} node runs, but does not offer it; `moe logs {node}` '
                               'may say why.')
        return Unavailable(f'Nobody serves {name}: the {node or "other"} node does not run; start the suite with '
                           '`moe up` and look at `moe status`.')

    @staticmethod
    def _silent(name: str) -> Timeout:
        return Timeout(f'Request timed out: {name} did not answer.')

    @staticmethod
    def _check_on(name: str, sent: SentGoal, deadline: float, timeout_s: float) -> None:
        """Raise where nothing more is to be expected of a goal."""
        if time.monotonic() >= deadline:
            raise Timeout(f'Request timed out: {name} gave no result within {timeout_s:g} s.')
        if reason := sent.lost():
            raise Unavailable(f'The node that serves {name} {reason}; look at `moe status`.')

    @contextlib.contextmanager
    def listening(self, interface: Any, name: str, put: Callable[[Any], None], qos: Any = 10) -> Iterator[str]:
        """Give every message of a topic to `put`, in the spinning thread, for the time of a with block."""
        subscription = self.node.create_subscription(interface, name, put, qos)
        try:
            yield subscription.topic_name
        finally:
            self.node.destroy_subscription(subscription)

    def latest(self, interface: Any, name: str, timeout_s: float = 5.0, qos: Any = qos_profile_sensor_data) -> Any:
        """Wait for the next message of a topic."""
        box: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self.listening(interface, name, box.put, qos) as topic:
            try:
                return box.get(timeout=timeout_s)
            except queue.Empty:
                raise self._no_message(topic, timeout_s) from None

    async def alatest(self, interface: Any, name: str, timeout_s: float = 5.0,
                      qos: Any = qos_profile_sensor_data) -> Any:
        """As latest()."""
        inbox = Inbox()
        with self.listening(interface, name, lambda message: inbox.put(('message', message)), qos) as topic:
            try:
                return (await inbox.get(timeout_s))[1]
            except TimeoutError:
                raise self._no_message(topic, timeout_s) from None

    @staticmethod
    def _no_message(topic: str, timeout_s: float) -> Unavailable:
        return Unavailable(f'No message on {topic} within {timeout_s:g} s; look at `moe status` for its node.')

    def rates(self, topics: dict[str, Any], seconds: float) -> dict[str, float]:
        """Count messages per topic for `seconds`, after the first one came; returns rates [Hz], 0.0 = none came."""
        arrivals: dict[str, list[float]] = {name: [] for name in topics}
        with contextlib.ExitStack() as stack:
            for name, interface in topics.items():
                def note(_message: Any, times: list[float] = arrivals[name]) -> None:
                    times.append(time.monotonic())

                stack.enter_context(self.listening(interface, name, note, qos_profile_sensor_data))
            self._wait(lambda: all(arrivals.values()), time.monotonic() + 5.0)
            time.sleep(seconds)
        return {name: (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
                for name, times in arrivals.items()}

    @staticmethod
    def _wait(ready: Callable[[], bool], deadline: float) -> bool:
        while not ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    @staticmethod
    async def _await(ready: Callable[[], bool], deadline: float) -> bool:
        while not ready():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True


class _Requests:
    """The copies of one request that were sent; those without an answer are forgotten at the end."""

    def __init__(self, client: Any, request: Any, put: Put) -> None:
        self._client, self._request, self._put = client, request, put
        self._futures: list[Any] = []

    def send(self) -> None:
        future = self._client.call_async(self._request)
        self._futures.append(future)
        future.add_done_callback(lambda done: self._put(('response', done.result())))

    def __enter__(self) -> _Requests:
        return self

    def __exit__(self, *_error: object) -> None:
        for future in self._futures:
            if not future.done():
                self._client.remove_pending_request(future)
