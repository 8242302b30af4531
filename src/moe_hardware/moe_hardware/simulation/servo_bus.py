"""A simulated Dynamixel bus: servos on a pseudo-terminal, at the level of bytes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.simulation import servo as rules
from moe_hardware.simulation.journal import Journal
from moe_hardware.simulation.line import Damage, Line
from moe_hardware.simulation.packets import BROADCAST, Instruction, Parser, crc16, status
from moe_hardware.simulation.pseudo_terminal import PseudoTerminal
from moe_hardware.simulation.servo import Refused, SimulatedServo

(PING, READ, WRITE, REG_WRITE, ACTION, FACTORY_RESET, REBOOT) = (1, 2, 3, 4, 5, 6, 8)
(SYNC_READ, SYNC_WRITE, FAST_SYNC_READ, BULK_READ, BULK_WRITE) = (0x82, 0x83, 0x8A, 0x92, 0x93)
_READS = (PING, READ, SYNC_READ, FAST_SYNC_READ, BULK_READ)
_POLL_S = 0.2  # how late a stop is noticed
LATE_S = 0.05  # a late answer comes after the driver has given up on it


def _word(data: bytes, at: int = 0) -> int:
    return int.from_bytes(data[at:at + 2], 'little')


class SimulatedBus:
    """Servos that answer Protocol 2.0 on a pty, in a thread of its own.

    Args:
        ids: one servo each.
        link: symlink to the pty, None = none; see `path`.
        baud_rate: at which the servos listen [baud]; another speed of the line is not heard.
        wire_timing: answers come as late as at this speed on a wire, with the return delay; else at once.
        journal: of all writes.
        fault_rate: share of answers that the line damages, 0..1; `line.rate` changes it.
        seed: of those damages.

    Faults: set the attributes of `servos[id]`; call corrupt(), delay(), split(), duplicate() and inject() for the line,
    unplug() and plug().
    """

    def __init__(self, ids: Iterable[int] = (1, 2), link: Path | None = None, baud_rate: int = 57600,
                 wire_timing: bool = False, journal: Journal | None = None, fault_rate: float = 0.0,
                 seed: int = 0) -> None:
        code = next((code for code, rate in ct.BAUD_RATES.items() if rate == baud_rate), None)
        if code is None:
            raise ValueError(f'An X-series servo has no {baud_rate} baud; choose one of '
                             f'{", ".join(str(rate) for rate in ct.BAUD_RATES.values())}.')
        self.journal = journal or Journal()
        self.servos = {one: SimulatedServo(one, time.monotonic) for one in ids}
        for one in self.servos.values():
            one.set(ct.BAUD_RATE, code)
        self.lock = threading.RLock()  # hold it to change several things of a servo at once
        self._link = link
        self._wire_timing = wire_timing
        self._corrupt = 0
        self._delays: list[float] = []
        self._split_s = 0.0
        self._doubled: set[int] = set()
        self.line = Line(self.inject, fault_rate, seed, tuple(Damage), late_s=LATE_S)
        self._stop = threading.Event()
        self._terminal: PseudoTerminal | None = None
        self._thread: threading.Thread | None = None
        self.plug()

    @property
    def path(self) -> Path:
        """The pty's slave. Raises RuntimeError while unplugged."""
        if self._terminal is None:
            raise RuntimeError('the bus is unplugged')
        return self._terminal.path

    def plug(self) -> None:
        """Make a new pty (and link) and answer on it."""
        self._stop = threading.Event()
        self._terminal = PseudoTerminal(self._link)
        self._thread = threading.Thread(target=self._run, args=(self._terminal, self._stop), daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """Hang up: what has the pty open gets errors, the link goes away, the servos keep their state."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def close(self) -> None:
        """End the simulation."""
        self.unplug()
        self.journal.close()

    def __enter__(self) -> SimulatedBus:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        self.close()

    def corrupt(self, packets: int = 1) -> None:
        """Spoil a byte of the next status packets."""
        self._corrupt = packets

    def delay(self, *seconds: float) -> None:
        """Answer the next requests this much later [s] each."""
        self._delays = list(seconds)

    def split(self, seconds: float) -> None:
        """Send every packet in two pieces with a pause between [s]; 0 ends it."""
        self._split_s = seconds

    def duplicate(self, servo: int, there: bool = True) -> None:
        """Have a second servo answer as this one, at the same time: what arrives is garbled."""
        (self._doubled.add if there else self._doubled.discard)(servo)

    def inject(self, data: bytes) -> None:
        """Put bytes on the line that no servo sent."""
        if self._terminal is not None:
            self._terminal.write(data)

    def _run(self, terminal: PseudoTerminal, stop: threading.Event) -> None:
        parser = Parser()
        while not stop.is_set():
            data = terminal.read(_POLL_S)
            if not data:
                continue
            baud_rate = terminal.baud_rate
            for instruction in parser.feed(data):
                with self.lock:
                    answers = self._answer(instruction, baud_rate)
                self._send(terminal, instruction, answers, baud_rate)

    def _send(self, terminal: PseudoTerminal, request: Instruction, answers: list[bytes], baud_rate: int) -> None:
        if not answers:
            return
        if self._delays:
            time.sleep(self._delays.pop(0))
        if self._wire_timing:
            count = len(request.parameters) + 10 + sum(len(answer) for answer in answers)
            pause = max((one.get(ct.RETURN_DELAY_TIME) for one in self.servos.values()), default=0)
            time.sleep(count * 10.0 / baud_rate + len(answers) * pause * ct.RETURN_DELAY_UNIT_US * 1e-6)
        for answer in answers:
            if answer[4] in self._doubled:  # low wins on the wire, and the other is a little later
                answer = bytes(one & other for one, other in zip(answer, answer[-1:] + answer))
            if self._corrupt:
                self._corrupt -= 1
                answer = answer[:-1] + bytes((answer[-1] ^ 0x5A,))
            if self._split_s:
                terminal.write(answer[:6])
                time.sleep(self._split_s)
                answer = answer[6:]
            self.line.send(answer)

    def _listening(self, baud_rate: int) -> list[SimulatedServo]:
        """Servos that hear the line, ascending by id as they answer a broadcast."""
        return sorted((one for one in self.servos.values() if one.awake() and one.baud_rate == baud_rate),
                      key=lambda one: one.id)

    def _answer(self, request: Instruction, baud_rate: int) -> list[bytes]:
        listening = self._listening(baud_rate)
        for one in listening:
            one.heard()
        broadcast = request.id == BROADCAST
        addressed = [one for one in listening if broadcast or one.id == request.id]
        if not request.intact:
            return [] if broadcast else [status(one.id, one.status_error(rules.CRC)) for one in addressed]
        try:
            if request.code in (SYNC_READ, FAST_SYNC_READ, BULK_READ):
                return self._group_read(request, listening)
            if request.code in (SYNC_WRITE, BULK_WRITE):
                self._group_write(request, listening)
                return []
        except IndexError:
            return []  # parameters cut short; no servo feels addressed
        answers = [self._single(request, one) for one in addressed]
        return [one for one in answers if one and (not broadcast or request.code == PING)]

    def _single(self, request: Instruction, one: SimulatedServo) -> bytes:
        """Do one instruction; b'' when the status return level wants silence."""
        before, level = one.id, one.get(ct.STATUS_RETURN_LEVEL)
        error, data = 0, b''
        try:
            data = self._instructions().get(request.code, self._unknown)(one, request.parameters)
        except Refused as refused:
            error = refused.error
        if (level == 0 and request.code != PING) or (level == 1 and request.code not in _READS):
            return b''
        return status(before, one.status_error(error), data)

    def _instructions(self) -> dict[int, Callable[[SimulatedServo, bytes], bytes]]:
        return {PING: self._ping, READ: self._read, WRITE: self._write, REG_WRITE: self._register_write,
                ACTION: self._action, REBOOT: self._reboot, FACTORY_RESET: self._factory_reset}

    @staticmethod
    def _unknown(_one: SimulatedServo, _parameters: bytes) -> bytes:
        raise Refused(rules.INSTRUCTION)

    @staticmethod
    def _ping(one: SimulatedServo, _parameters: bytes) -> bytes:
        return one.read(ct.MODEL_NUMBER.address, 2) + one.read(ct.FIRMWARE_VERSION.address, 1)

    @staticmethod
    def _read(one: SimulatedServo, parameters: bytes) -> bytes:
        if len(parameters) != 4:
            raise Refused(rules.DATA_LENGTH)
        return one.read(_word(parameters), _word(parameters, 2))

    def _write(self, one: SimulatedServo, parameters: bytes) -> bytes:
        if len(parameters) < 3:
            raise Refused(rules.DATA_LENGTH)
        self._note(one, _word(parameters), parameters[2:])
        return b''

    def _note(self, one: SimulatedServo, address: int, data: bytes) -> None:
        servo, error = one.id, 0
        try:
            one.write(address, data)
        except Refused as refused:
            error = refused.error
            raise
        finally:
            self.journal.add(servo, address, data, error)

    @staticmethod
    def _register_write(one: SimulatedServo, parameters: bytes) -> bytes:
        if len(parameters) < 3:
            raise Refused(rules.DATA_LENGTH)
        one.register_write(_word(parameters), parameters[2:])
        return b''

    def _action(self, one: SimulatedServo, _parameters: bytes) -> bytes:
        if kept := one.action():
            self._note(one, *kept)
        return b''

    @staticmethod
    def _reboot(one: SimulatedServo, _parameters: bytes) -> bytes:
        one.reboot()
        return b''

    @staticmethod
    def _factory_reset(one: SimulatedServo, parameters: bytes) -> bytes:
        option = parameters[0] if parameters else 0
        if option not in (0xFF, 0x01, 0x02):
            raise Refused(rules.DATA_RANGE)
        one.factory_reset(keep_id=option != 0xFF, keep_baud_rate=option == 0x02)
        one.reboot()
        return b''

    def _group_read(self, request: Instruction, listening: list[SimulatedServo]) -> list[bytes]:
        parameters = request.parameters
        if request.code == BULK_READ:
            wanted = [(parameters[at], _word(parameters, at + 1), _word(parameters, at + 3))
                      for at in range(0, len(parameters), 5)]
        else:
            address, length = _word(parameters), _word(parameters, 2)
            wanted = [(servo, address, length) for servo in parameters[4:]]
        present = {one.id: one for one in listening}
        answers: list[tuple[int, int, bytes]] = []
        for servo, address, length in wanted:
            one = present.get(servo)
            if one is None:
                break  # every servo waits for the answer of the one before it
            try:
                answers.append((servo, one.status_error(), one.read(address, length)))
            except Refused as refused:
                answers.append((servo, one.status_error(refused.error), b''))
        if request.code != FAST_SYNC_READ:
            return [status(*answer) for answer in answers]
        if len(answers) != len(wanted) or not answers:
            return []
        return [self._fast_status(answers)]

    @staticmethod
    def _fast_status(answers: list[tuple[int, int, bytes]]) -> bytes:
        """One packet for all: error, id, data of each, with a CRC between two of them that covers all before it."""
        length = sum(len(data) + 4 for _servo, _error, data in answers) + 1
        packet = bytearray(b'\xff\xff\xfd\x00\xfe' + length.to_bytes(2, 'little') + b'\x55')
        for servo, error, data in answers:
            packet += bytes((error, servo)) + data
            packet += crc16(bytes(packet)).to_bytes(2, 'little')
        return bytes(packet)

    def _group_write(self, request: Instruction, listening: list[SimulatedServo]) -> None:
        parameters = request.parameters
        writes: list[tuple[int, int, bytes]] = []
        if request.code == SYNC_WRITE:
            address, length = _word(parameters), _word(parameters, 2)
            writes = [(parameters[at], address, parameters[at + 1:at + 1 + length])
                      for at in range(4, len(parameters), 1 + length)]
        else:
            at = 0
            while at < len(parameters):
                length = _word(parameters, at + 3)
                writes.append((parameters[at], _word(parameters, at + 1), parameters[at + 5:at + 5 + length]))
                at += 5 + length
        present = {one.id: one for one in listening}
        for servo, address, data in writes:
            if servo in present:
                with contextlib.suppress(Refused):  # a group write has no status packet to say it in
                    self._note(present[servo], address, data)
