"""Frames of the simulated servos, checked against the SDK's independent arithmetic."""

from dynamixel_sdk.protocol2_packet_handler import Protocol2PacketHandler
from hypothesis import given
from hypothesis import strategies as st

from moe_hardware.simulation import packets

bodies = st.binary(min_size=1, max_size=40) | st.lists(
    st.sampled_from([0xFF, 0xFD, 0x00, 0x55]), min_size=1, max_size=40).map(bytes)


@given(bodies)
def test_crc_is_that_of_the_sdk(data):
    assert packets.crc16(data) == Protocol2PacketHandler().updateCRC(0, data, len(data))


@given(bodies)
def test_stuffing_leaves_no_header_and_can_be_undone(body):
    assert packets.unstuff(packets.stuff(body)) == body
    assert packets.HEADER + b'\x00' not in packets.stuff(body) + b'\xfd'


@given(st.lists(bodies, min_size=1, max_size=4), st.integers(1, 9))
def test_packets_are_found_in_whatever_pieces_they_come(found, size):
    stream = b'\x00\xff\xff' + b''.join(packets.frame(7, body) for body in found)
    parser = packets.Parser()
    seen = [instruction for at in range(0, len(stream), size) for instruction in parser.feed(stream[at:at + size])]
    assert [bytes((one.code,)) + one.parameters for one in seen] == found
    assert all(one.id == 7 and one.intact for one in seen)


def test_a_spoilt_packet_is_marked():
    packet = bytearray(packets.frame(1, b'\x02\x84\x00\x04\x00'))
    packet[9] ^= 1
    assert [one.intact for one in packets.Parser().feed(bytes(packet))] == [False]
