"""registry_node: the registry's services and its latched events. The only node that opens the database."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sqlalchemy import URL

from moe_experts.registry.catalogue import seed
from moe_experts.registry.database import Database, Settings
from moe_experts.registry.entities import Event
from moe_experts.registry.errors import DatabaseUnavailable, RegistryError
from moe_experts.registry.listener import Listener
from moe_experts.registry.outbox import Outbox
from moe_experts.registry.registry import Registry
from moe_experts.registry.spool import Spool
from moe_experts.ros import registry_conversions as convert
from moe_experts.ros import registry_experts, registry_operations, registry_routes
from moe_experts.ros.action_client import SERVICE_QOS
from moe_experts.ros.diagnostics import diagnose
from moe_experts.ros.quick_endpoints import QuickEndpoints
from moe_experts.ros.registry_access import Access, answer
from moe_experts.ros.spinning import spin
from moe_interfaces.msg import RegistryEvent

LATCHED = 1000
EVENTS_QOS = QoSProfile(depth=LATCHED, reliability=ReliabilityPolicy.RELIABLE,
                        durability=DurabilityPolicy.TRANSIENT_LOCAL)
CHORES_S = 5.0  # between two looks at A/B tests and the outbox
RETRY_LIMIT_S = 10.0
THREADS = 4
QUICK = ('get_expert', 'list_experts', 'get_version')  # what others wait for while they answer a person


class RegistryNode(Node):  # type: ignore[misc]
    """Serves registry/*; stays up, and says why, while the database is away."""

    def __init__(self) -> None:
        super().__init__('registry', enable_logger_service=True)
        self._declare()
        self._home = Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()
        self._database: Database | None = None
        self._listener: Listener | None = None
        self._chores_at = 0.0
        self._stop = threading.Event()
        self._access = Access()
        self._access.spool = Spool(lambda: self._access.registry, Outbox(self._home / 'outbox' / 'registry.jsonl'))
        self._events = self.create_publisher(RegistryEvent, 'registry/events', EVENTS_QOS)
        # Each call is one short transaction on a pooled connection, so any number may run at once.
        group = ReentrantCallbackGroup()
        for services in (registry_experts.SERVICES, registry_routes.SERVICES, registry_operations.SERVICES):
            for name, (interface, handle) in services.items():
                if name not in QUICK:
                    self.create_service(interface, f'registry/{name}', answer(self._access, handle),
                                        qos_profile=SERVICE_QOS, callback_group=group)
        self._quick = QuickEndpoints(self, 'quick')
        for name in QUICK:
            interface, handle = registry_experts.SERVICES[name]
            self._quick.service(f'registry/{name}', interface, answer(self._access, handle))
        self._quick.start()
        self._diagnostics = diagnose(self, 'registry', self._check, MutuallyExclusiveCallbackGroup())
        self._thread = threading.Thread(target=self._keep_open, name='database')
        self._thread.start()

    def _declare(self) -> None:
        for name, default, description in (
                ('catalogue', '', 'experts.yaml with the built-in experts; "" = none'),
                ('database.host', '', 'host of the Postgres server; "" = the embedded one. MOE_DATABASE_URL, or the '
                                      'file that it names, comes before'),
                ('database.name', 'moe_db', 'database on that host'), ('database.user', 'moe_user', 'role there'),
                ('database.password_file', '', 'file that holds the password and nothing else; "" = none')):
            self.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=True))
        self.declare_parameter('database.port', 5432, ParameterDescriptor(
            description='port of the server', read_only=True,
            integer_range=[IntegerRange(from_value=1, to_value=65535, step=0)]))
        self.declare_parameter('database.timeout', 30.0, ParameterDescriptor(
            description='connect and statement timeout [s], 1 to 600; 30 or 30.0', read_only=True, dynamic_typing=True))
        self.declare_parameter('database.pool_size', 5, ParameterDescriptor(
            description='connections kept open', read_only=True,
            integer_range=[IntegerRange(from_value=1, to_value=100, step=0)]))
        timeout = self.get_parameter('database.timeout').value
        if not isinstance(timeout, int | float) or not 1 <= timeout <= 600:
            raise ValueError(f'database.timeout is {timeout!r} and must be 1 to 600 seconds.')

    def _value(self, name: str) -> str:
        return str(self.get_parameter(name).value)

    def _settings(self) -> Settings:
        """Where the database is: the environment, else the parameters. Raises RegistryError."""
        url = os.environ.get('MOE_DATABASE_URL', '')
        host, password_file = self._value('database.host'), self._value('database.password_file')
        try:
            if url and '://' not in url:
                url = Path(url).expanduser().read_text(encoding='utf-8').strip()
            elif host and not url:
                password = Path(password_file).expanduser().read_text(encoding='utf-8').strip() if password_file \
                    else None
                url = URL.create('postgresql', self._value('database.user'), password, host,
                                 self.get_parameter('database.port').value,
                                 self._value('database.name')).render_as_string(hide_password=False)
        except OSError as error:
            raise RegistryError(f'{error.filename} cannot be read: {error.strerror}; it should hold the '
                                'database\'s URL or password.') from error
        return Settings(url, float(self.get_parameter('database.timeout').value),
                        self.get_parameter('database.pool_size').value)

    def close(self) -> None:
        """Stop following the database, and let go of the embedded server."""
        self._stop.set()
        if self._listener is not None:
            self._listener.wake()
        self._thread.join()
        self._quick.close()
        if self._database is not None:
            self._database.close()

    def _check(self) -> tuple[bytes, str, dict[str, str]]:
        values = {'outbox [bytes]': str(self._access.spool.waiting_bytes)}
        if self._database is not None:
            values['database'] = self._database.where
        if self._access.unavailable:
            return DiagnosticStatus.ERROR, self._access.unavailable, values
        return DiagnosticStatus.OK, 'The registry is ready.', values

    def _keep_open(self) -> None:
        """Open the database and follow it; try again, with back-off, whenever it is away."""
        delay = 0.5
        while not self._stop.is_set():
            try:
                self._open().run(self._do_chores, CHORES_S, self._stop.is_set)
            except RegistryError as error:
                if not self._access.unavailable:
                    delay = 0.5  # it was open until now
                self._access.unavailable = str(error)
                if not isinstance(error, DatabaseUnavailable):
                    self.get_logger().error(str(error))
                    return
                self.get_logger().error(f'{error} Trying again in {delay:.1f} s.')
                self._stop.wait(delay)
                delay = min(RETRY_LIMIT_S, 2 * delay)

    def _open(self) -> Listener:
        """The listener on an open registry; raises RegistryError."""
        if self._database is None:
            self._database = Database(self._home, self._settings())
        elif self._access.unavailable:
            self._database.revive()
        if self._access.opened is None:
            registry = Registry(self._database, self._home)
            registry.api_keys.publish()
            self._access.opened = registry
            if catalogue := self._value('catalogue'):
                try:
                    seed(registry, Path(catalogue), self._home, self.get_logger().warning)
                except DatabaseUnavailable:
                    self._access.opened = None
                    raise
                except RegistryError as error:
                    self.get_logger().error(str(error))
            for finding, version, path in registry.maintenance.run('verify').rows:
                self.get_logger().warning(f'Artifact {finding}: {version} {path}')
        if self._listener is None:
            self._listener = Listener(self._database, self._access.opened.events, self._publish, LATCHED)
        return self._listener

    def _publish(self, event: Event) -> None:
        self._events.publish(convert.event_message(event))

    def _do_chores(self) -> None:
        """Once the database answers: send what waits in the outbox, judge the running A/B tests."""
        if self._access.unavailable:
            self._access.unavailable, self._chores_at = '', 0.0
            self.get_logger().info('The registry is ready.')
        if time.monotonic() - self._chores_at < CHORES_S:
            return
        self._chores_at = time.monotonic()
        sent = self._access.spool.drain(self.get_logger().warning)
        if sent:
            self.get_logger().info(f'{sent} writes from the outbox are in the database.')
        for test in self._access.registry.ab_tests.decide():
            self.get_logger().info(f'A/B test {test.id} is {test.status}: {test.verdict}')


def main() -> None:
    """Run the node."""
    spin(RegistryNode, THREADS)
