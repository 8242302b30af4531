"""The driver over the real SDK against simulated servos, byte by byte over a pty."""

import os
import threading
import time

import pytest
from dynamixel_sdk.group_bulk_read import GroupBulkRead

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.dynamixel.bus import Bus, ServoRefused, ServoSilent
from moe_hardware.dynamixel.packets import PacketHandler, SyncRead
from moe_hardware.dynamixel.port import LATENCY_S, BusPort, PortGone
from moe_hardware.errors import HardwareFault
from moe_hardware.simulation.servo_bus import SimulatedBus

FAST = 1000000


@pytest.fixture
def simulated(tmp_path):
    with SimulatedBus((1, 2, 3), tmp_path / 'servos', FAST) as bus:
        yield bus


@pytest.fixture
def bus(simulated, tmp_path):
    bus = Bus(str(tmp_path / 'servos'), FAST)
    bus.open()
    yield bus
    bus.close()


def test_ping_one_and_all(bus, simulated):
    assert bus.ping(2) == 1060
    with pytest.raises(ServoSilent, match=r'Servo 9 .* does not answer'):
        bus.ping(9)
    simulated.servos[3].voltage = 11.1
    found = bus.scan([FAST])
    assert [(one.id, one.model_number, one.baud_rate) for one in found] == [(n, 1060, FAST) for n in (1, 2, 3)]
    assert found[2].voltage == pytest.approx(11.1)


def test_scan_finds_servos_at_three_rates(bus, simulated):
    simulated.servos[1].set(ct.BAUD_RATE, 1)
    simulated.servos[2].set(ct.BAUD_RATE, 2)
    assert [(one.id, one.baud_rate) for one in bus.scan([57600, 115200, FAST])] == [
        (1, 57600), (2, 115200), (3, FAST)]
    assert bus.read(3, ct.ID) == 3


def test_read_and_write(bus, simulated):
    bus.write(1, ct.GOAL_POSITION, 3000)
    assert bus.read(1, ct.GOAL_POSITION) == 3000
    with pytest.raises(ServoRefused, match=r'refused to write goal_position := 5000: .*limit'):
        bus.write(1, ct.GOAL_POSITION, 5000)
    with pytest.raises(ServoRefused):
        bus.write(1, ct.PRESENT_POSITION, 1)
    assert [(one['id'], one['register'], one['value'], one['error']) for one in simulated.journal.entries] == [
        (1, 'goal_position', 3000, 0), (1, 'goal_position', 5000, 6), (1, 'present_position', 1, 7)]


def test_sync_write_and_sync_read(bus, simulated):
    bus.sync_write(ct.GOAL_POSITION, {1: 100, 2: 200, 3: 300})
    answers, alerts = bus.sync_read([3, 1, 2], ct.GOAL_POSITION, ct.GOAL_POSITION)
    assert {servo: ct.GOAL_POSITION.decode(data) for servo, data in answers.items()} == {1: 100, 2: 200, 3: 300}
    assert not alerts
    simulated.servos[2].raise_hardware_error(1 << 2)
    answers, alerts = bus.sync_read([1, 2, 3], ct.HARDWARE_ERROR_STATUS, ct.HARDWARE_ERROR_STATUS)
    assert answers == {1: b'\x00', 2: b'\x04', 3: b'\x00'}
    assert alerts == {2}


def test_a_silent_servo_does_not_take_the_others_along(bus, simulated):
    simulated.servos[1].muted = True
    answers, _ = bus.sync_read([1, 2, 3], ct.ID, ct.ID)
    assert answers == {2: b'\x02', 3: b'\x03'}
    assert bus.silences == {1: 1}


@pytest.mark.parametrize('pattern', [b'\xff\xff\xfd\x00', b'\xff\xff\xfd\xfd', b'\xfd\xff\xff\xfd'])
def test_stuffing_in_both_directions(bus, pattern):
    value = ct.HOMING_OFFSET.decode(pattern)
    two = ct.Register('two', ct.POSITION_D_GAIN.address, 2)
    bus.write(1, two, 0x12FF & 0x3FFF)
    wide = ct.Register('wide', ct.GOAL_VELOCITY.address, 4, signed=True)
    with pytest.raises(ServoRefused):  # it arrives whole, and is out of the register's limits
        bus.write(1, wide, value)
    assert bus.read(1, two) == 0x12FF


def test_what_is_stuffed_arrives_bare_and_comes_back(bus, simulated):
    simulated.servos[1].set(ct.MIN_POSITION_LIMIT, 0)
    for at, pattern in enumerate((b'\xff\xff\xfd\x00', b'\xff\xff\xfd\xfd', b'\x00\xff\xff\xfd')):
        value = ct.GOAL_POSITION.decode(pattern)
        simulated.servos[1].set(ct.GOAL_POSITION, value)
        assert bus.read(1, ct.GOAL_POSITION) == value
        with pytest.raises(ServoRefused):
            bus.write(1, ct.GOAL_POSITION, value)
        assert simulated.journal.entries[at]['value'] == value


def test_unstuffing_does_not_look_at_moved_bytes():
    packet = [0] * 7 + list(b'\x55\x00\xff\xff\xfd\xfd\x00\xff\xfd\xfd') + [1, 2]
    packet[5] = len(packet) - 7
    assert bytes(PacketHandler().removeStuffing(packet)[7:-2]) == b'\x55\x00\xff\xff\xfd\x00\xff\xfd\xfd'


def test_a_late_reply_is_not_the_answer_to_the_next_request(bus, simulated):
    simulated.servos[1].set(ct.GOAL_POSITION, 1234)
    simulated.delay(1.5 * LATENCY_S)
    with pytest.raises(ServoSilent):
        for _ in range(2):
            bus.ping(1)
    assert bus.read(1, ct.PRESENT_INPUT_VOLTAGE) == 120
    assert bus.read(1, ct.GOAL_POSITION) == 1234


def test_a_reply_of_another_length_is_passed_over(bus, simulated):
    stale = b'\xff\xff\xfd\x00\x01\x08\x00\x55\x00'
    from moe_hardware.simulation.packets import crc16
    stale += b'\x11\x22\x33\x44'
    stale += crc16(stale).to_bytes(2, 'little')
    simulated.delay(0.02)
    timer = threading.Timer(0.005, simulated.inject, (stale,))
    timer.start()
    assert bus.read(1, ct.PRESENT_INPUT_VOLTAGE) == 120
    timer.join()


def test_stale_bytes_are_dropped_before_a_request(bus, simulated):
    simulated.inject(b'\xff\xff\xfd\x00\x01\x06\x00\x55')
    assert bus.read(1, ct.PRESENT_INPUT_VOLTAGE) == 120


def test_split_and_garbled_replies(bus, simulated):
    simulated.split(0.01)
    assert bus.read(1, ct.PRESENT_POSITION) == 2048
    simulated.split(0.0)
    simulated.corrupt()
    assert bus.read(1, ct.PRESENT_POSITION) == 2048  # asked once more
    simulated.corrupt(2)
    with pytest.raises(ServoSilent, match='garbled'):
        bus.read(1, ct.PRESENT_POSITION)
    assert bus.read(1, ct.PRESENT_POSITION) == 2048


def test_waiting_costs_no_processor_time(bus):
    begin, used = time.monotonic(), time.thread_time()
    for _ in range(10):
        with pytest.raises(ServoSilent):
            bus.ping(9)
    assert time.thread_time() - used < 0.5 * (time.monotonic() - begin)


def test_the_port_belongs_to_one(bus, tmp_path):
    other = Bus(str(tmp_path / 'servos'), FAST)
    with pytest.raises(HardwareFault, match='is busy'):
        other.open()
    bus.close()
    other.open()
    assert other.ping(1) == 1060
    other.close()


def test_an_absent_port_says_what_to_do(tmp_path):
    with pytest.raises(HardwareFault, match=r'does not exist; plug the adapter in'):
        Bus(str(tmp_path / 'nothing'), FAST).open()
    (tmp_path / 'file').write_text('')
    with pytest.raises(HardwareFault, match='cannot be opened'):
        Bus(str(tmp_path / 'file'), FAST).open()
    with pytest.raises(HardwareFault, match='The SDK has no 12345 baud'):
        Bus(str(tmp_path / 'nothing'), 12345).open()


def test_unplug_and_replug_to_another_pty(bus, simulated):
    before = simulated.path
    simulated.unplug()
    with pytest.raises(PortGone, match='was unplugged'):
        bus.ping(1)
    with pytest.raises(PortGone):  # the SDK's "port is busy" does not stick
        bus.ping(1)
    ends = os.openpty()  # takes the number of the old pty
    simulated.plug()
    assert simulated.path != before and bus.moved()
    bus.open()
    assert bus.ping(1) == 1060
    for end in ends:
        os.close(end)


def test_reboot(bus, simulated):
    bus.write(1, ct.TORQUE_ENABLE, 1)
    bus.reboot(1)
    with pytest.raises(ServoSilent):
        bus.ping(1)
    give_up = time.monotonic() + 5.0
    while time.monotonic() < give_up and not simulated.servos[1].awake():
        time.sleep(0.02)
    assert bus.read(1, ct.TORQUE_ENABLE) == 0


def test_fast_sync_read_bulk_read_and_action_of_the_bare_sdk(simulated):
    port, handler = BusPort(str(simulated.path)), PacketHandler()
    port.open(FAST)
    request = SyncRead(port, handler, ct.ID.address, 1)
    request.addParam(1)
    request.addParam(3)
    assert request.fastSyncRead() == 0
    assert [request.getData(servo, ct.ID.address, 1) for servo in (1, 3)] == [1, 3]
    bulk = GroupBulkRead(port, handler)
    bulk.addParam(1, ct.MODEL_NUMBER.address, 2)
    bulk.addParam(2, ct.PRESENT_POSITION.address, 4)
    assert bulk.txRxPacket() == 0
    assert bulk.getData(1, 0, 2) == 1060 and bulk.getData(2, 132, 4) == 2048
    handler.regWriteTxRx(port, 2, ct.GOAL_POSITION.address, 4, [0, 1, 0, 0])
    assert simulated.journal.entries == []
    handler.action(port, 2)
    assert handler.read4ByteTxRx(port, 2, ct.GOAL_POSITION.address)[0] == 256
    port.closePort()


def test_no_wrong_value_however_the_line_behaves(bus, simulated):
    """Lost, cut, split, late, noisy, spoilt and collided answers: each value read is that of the register asked for."""
    simulated.line.rate = 0.2
    values = {servo: 1000 + servo for servo in (1, 2, 3)}
    simulated.servos[1].set(ct.GOAL_POSITION, values[1])
    possible = {servo: {simulated.servos[servo].get(ct.GOAL_POSITION)} for servo in values}
    read = failed = 0
    for number in range(400):
        servo = 1 + number % 3
        try:
            if number % 5 == 0:
                possible[servo].add(number)
                bus.write(servo, ct.GOAL_POSITION, number)
                possible[servo] = {number}
            elif number % 5 == 1:
                answers, _ = bus.sync_read((1, 2, 3), ct.GOAL_POSITION, ct.GOAL_POSITION)
                for one, data in answers.items():
                    assert ct.GOAL_POSITION.decode(data) in possible[one]
            elif number % 5 == 2:
                assert bus.read(servo, ct.PRESENT_INPUT_VOLTAGE) == 120
            elif number % 5 == 3:
                assert bus.read(servo, ct.MODEL_NUMBER) == 1060
            else:
                assert bus.read(servo, ct.GOAL_POSITION) in possible[servo]
            read += 1
        except ServoSilent:
            failed += 1
    assert read > 10 * failed
    assert bus.silences and bus.damages
