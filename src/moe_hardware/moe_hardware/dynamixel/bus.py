"""The bus as registers of servos: typed reads and writes over the SDK, for one thread at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dynamixel_sdk.group_sync_write import GroupSyncWrite
from dynamixel_sdk.robotis_def import COMM_RX_TIMEOUT, COMM_SUCCESS

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.dynamixel.control_table import Register
from moe_hardware.dynamixel.packets import PacketHandler, SyncRead
from moe_hardware.dynamixel.port import BusPort
from moe_hardware.errors import HardwareFault, InvalidCommand

_ERROR_BITS, _ALERT = 0x7F, 0x80
_ATTEMPTS = 2  # of a request whose answer was lost; every register write here may be repeated


class ServoSilent(HardwareFault):
    """A servo did not answer, or not in one piece."""


class ServoRefused(HardwareFault):
    """A servo answered with an error number."""


@dataclass(frozen=True)
class Found:
    """A servo that a scan met."""

    id: int
    model_number: int
    firmware_version: int
    baud_rate: int  # [baud]
    voltage: float = 0.0  # [V]
    temperature: float = 0.0  # [degree Celsius]


class Bus:
    """Servos on one port.

    Args:
        port_name: device or symlink.
        baud_rate: [baud].

    Every method raises PortGone when the port is away; those for one servo raise ServoSilent and ServoRefused.
    `silences` and `damages` count by servo id, since the start, the requests (each attempt) that were not answered in
    time and those whose answer did not come in one piece.

    A reply carries no number of its request. So after one that did not come, or came damaged, or after bytes that
    nobody asked for, the next request is preceded by a ping, whose answer has a length of its own: a line keeps its
    order, so what comes before that answer is old and is dropped.
    """

    def __init__(self, port_name: str, baud_rate: int) -> None:
        self._port = BusPort(port_name)
        self._packets = PacketHandler()
        self._baud_rate = baud_rate
        self.silences: Counter[int] = Counter()
        self.damages: Counter[int] = Counter()

    @property
    def name(self) -> str:
        """The port as it was named."""
        return str(self._port.port_name)

    @property
    def baud_rate(self) -> int:
        """Rate that open() sets [baud]."""
        return self._baud_rate

    def open(self) -> None:
        """Open the port. Raises HardwareFault with what is wrong and what to do."""
        self._port.open(self._baud_rate)

    def close(self) -> None:
        """Close the port."""
        self._port.closePort()

    def moved(self) -> bool:
        """Whether the port's name leads to another device by now."""
        return self._port.moved()

    def _once(self, servo: int, request: Callable[[], tuple[Any, int, int]]) -> tuple[Any, int, int]:
        """Make one request; returns data, result of the SDK and the error field. Failures are counted."""
        try:
            answer = request()
        finally:
            self._port.is_using = False
        self._count(servo, answer[1])
        return answer

    def _count(self, servo: int, result: int) -> None:
        if result == COMM_RX_TIMEOUT:
            self.silences[servo] += 1
        elif result != COMM_SUCCESS:
            self.damages[servo] += 1

    def _in_step(self, servo: int) -> int:
        """Make sure that the next answer belongs to the next request; returns a result of the SDK."""
        if not self._port.unsure:
            return int(COMM_SUCCESS)
        self._port.unsure = False
        return self._once(servo, lambda: self._packets.ping(self._port, servo))[1]

    def _ask(self, servo: int, what: str, request: Callable[[], tuple[Any, int, int]],
             attempts: int = _ATTEMPTS) -> Any:
        """Make a request of one servo, again if its answer was lost; returns the data."""
        data, result, error = None, COMM_RX_TIMEOUT, 0
        for _ in range(attempts):
            result = self._in_step(servo)
            if result == COMM_SUCCESS:
                data, result, error = self._once(servo, request)
            if result == COMM_SUCCESS:
                break
        if result != COMM_SUCCESS:
            kind = 'does not answer' if result == COMM_RX_TIMEOUT else 'answers garbled'
            raise ServoSilent(f'Servo {servo} on {self.name} {kind} ({what}); check power, cable, id and baud rate.')
        if error & _ERROR_BITS:
            text = self._packets.getRxPacketError(error & _ERROR_BITS).removeprefix('[RxPacketError] ')
            raise ServoRefused(f'Servo {servo} refused to {what}: {text}')
        return data

    def ping(self, servo: int) -> int:
        """Return the model number."""
        self._port.unsure = False
        return int(self._ask(servo, 'ping', lambda: self._packets.ping(self._port, servo), attempts=1))

    def read(self, servo: int, register: Register) -> int:
        """Return the value of a register."""
        return register.decode(bytes(self._ask(servo, f'read {register.name}', lambda: self._packets.readTxRx(
            self._port, servo, register.address, register.size))))

    def write(self, servo: int, register: Register, value: int) -> None:
        """Write a register; returns once the servo has confirmed it."""
        data = list(register.encode(value))
        self._ask(servo, f'write {register.name} := {value}', lambda: (None, *self._packets.writeTxRx(
            self._port, servo, register.address, register.size, data)))

    def reboot(self, servo: int) -> None:
        """Restart a servo; it is silent for some tenths of a second and comes back with its torque off."""
        self._ask(servo, 'reboot', lambda: (None, *self._packets.reboot(self._port, servo)), attempts=1)

    def set_id(self, old: int, new: int) -> None:
        """Give a servo another id, with its torque off. Raises InvalidCommand when it cannot be."""
        if not all(0 <= one <= ct.ID.maximum for one in (old, new)) or old == new:
            raise InvalidCommand(f'The id cannot be changed from {old} to {new}; give two different ones of 0 to '
                                 f'{ct.ID.maximum}.')
        self.ping(old)
        try:
            self.ping(new)
        except ServoSilent:
            pass
        else:
            raise InvalidCommand(f'A servo answers as {new} already; two with one id garble each other. Give another.')
        self.write(old, ct.TORQUE_ENABLE, 0)
        self.write(old, ct.BUS_WATCHDOG, 0)
        self._ask(old, f'write id := {new}', lambda: (None, *self._packets.writeTxRx(
            self._port, old, ct.ID.address, ct.ID.size, [new])), attempts=1)
        self.ping(new)

    def sync_read(self, servos: Iterable[int], first: Register, last: Register) -> tuple[dict[int, bytes], set[int]]:
        """Read the bytes from one register to another of several servos at once.

        Returns the bytes of those that answered, and the ids of those with the alert bit (register 70 is set). A
        servo that stays silent keeps those after it in the list from answering: they are asked once more, alone.
        """
        wanted = list(servos)
        length = last.address + last.size - first.address
        answers: dict[int, bytes] = {}
        errors: dict[int, int] = {}
        for group in self._groups(wanted, answers):
            if self._in_step(group[0]) != COMM_SUCCESS:
                continue
            request = SyncRead(self._port, self._packets, first.address, length)
            for servo in group:
                request.addParam(servo)
            try:
                request.txRxPacket()
            finally:
                self._port.is_using = False
            answers |= request.answers
            errors |= request.errors
            for servo, result in request.failures.items():
                self._count(servo, result)
                if result == COMM_RX_TIMEOUT:
                    break  # those after it wait for its answer and are not to blame
        return answers, {servo for servo, error in errors.items() if error & _ALERT}

    @staticmethod
    def _groups(wanted: list[int], answers: dict[int, bytes]) -> Iterable[list[int]]:
        """Yield all at once, then, after the first silent one, each of the rest."""
        if wanted:
            yield wanted
        silent = next((at for at, servo in enumerate(wanted) if servo not in answers), len(wanted))
        for servo in wanted[silent + 1:]:
            if servo not in answers:
                yield [servo]

    def sync_write(self, register: Register, values: Mapping[int, int]) -> None:
        """Write a register of several servos at once; no servo confirms it."""
        request = GroupSyncWrite(self._port, self._packets, register.address, register.size)
        for servo, value in values.items():
            request.addParam(servo, list(register.encode(value)))
        try:
            request.txPacket()
        finally:
            self._port.is_using = False

    def scan(self, baud_rates: Iterable[int]) -> list[Found]:
        """Look for servos at several rates by broadcast ping [baud]; the port is at its own rate again afterwards."""
        found: list[Found] = []
        try:
            for baud_rate in baud_rates:
                self._port.open(baud_rate)
                try:
                    seen, _result = self._packets.broadcastPing(self._port)
                finally:
                    self._port.is_using = False
                for servo, (model, firmware) in sorted(seen.items()):
                    try:
                        voltage = self.read(servo, ct.PRESENT_INPUT_VOLTAGE) * ct.VOLTAGE_UNIT
                        temperature = float(self.read(servo, ct.PRESENT_TEMPERATURE))
                    except (ServoSilent, ServoRefused):
                        voltage, temperature = float('nan'), float('nan')
                    found.append(Found(servo, model, firmware, baud_rate, voltage, temperature))
        finally:
            self._port.open(self._baud_rate)
        return found
