"""Protocol 2.0 packets: the SDK's handler with its faults corrected (dynamixel-sdk 4.1.0).

The SDK builds stuffed packets and then sends the bare ones; unstuffing looks at bytes it has already moved; a reply
of another length counts as the answer; one silent servo makes a whole sync read fail.
"""

from __future__ import annotations

from dynamixel_sdk.group_sync_read import GroupSyncRead
from dynamixel_sdk.protocol2_packet_handler import (
    PKT_ERROR,
    PKT_ID,
    PKT_INSTRUCTION,
    PKT_LENGTH_H,
    PKT_LENGTH_L,
    PKT_PARAMETER0,
    Protocol2PacketHandler,
)
from dynamixel_sdk.robotis_def import (
    BROADCAST_ID,
    COMM_RX_TIMEOUT,
    COMM_SUCCESS,
    DXL_MAKEWORD,
    INST_PING,
    INST_READ,
    INST_SYNC_READ,
)

from moe_hardware.dynamixel.port import BusPort

_HEADER = b'\xff\xff\xfd'
_STATUS_LENGTH = 11  # of a status packet without parameters
_ERROR_BITS = 0x7F  # without the alert, which is no error of communication


class PacketHandler(Protocol2PacketHandler):  # type: ignore[misc]
    """Protocol 2.0 with stuffing in both directions and replies checked against the request."""

    def __init__(self) -> None:
        self._reply_length = 0  # whole packet, unstuffed; 0 = any

    def addStuffing(self, packet: list[int]) -> list[int]:
        """Stuff in place, so that what is sent is what was stuffed."""
        return self._rebuild(packet, bytes(packet[PKT_INSTRUCTION:-2]).replace(_HEADER, _HEADER + b'\xfd'))

    def removeStuffing(self, packet: list[int]) -> list[int]:
        """Unstuff in place."""
        return self._rebuild(packet, bytes(packet[PKT_INSTRUCTION:-2]).replace(_HEADER + b'\xfd', _HEADER))

    @staticmethod
    def _rebuild(packet: list[int], body: bytes) -> list[int]:
        packet[PKT_INSTRUCTION:-2] = list(body)
        packet[PKT_LENGTH_L], packet[PKT_LENGTH_H] = (len(body) + 2) & 0xFF, (len(body) + 2) >> 8
        return packet

    def txPacket(self, port: BusPort, txpacket: list[int]) -> int:
        """Send; remembers how long the answer must be."""
        instruction, at = txpacket[PKT_INSTRUCTION], PKT_PARAMETER0
        self._reply_length = _STATUS_LENGTH
        if instruction in (INST_READ, INST_SYNC_READ):
            self._reply_length += DXL_MAKEWORD(txpacket[at + 2], txpacket[at + 3])
        elif instruction == INST_PING:
            self._reply_length += 3
        elif txpacket[PKT_ID] == BROADCAST_ID:
            self._reply_length = 0
        return int(super().txPacket(port, txpacket))

    def rxPacket(self, port: BusPort, fast_option: bool) -> tuple[list[int], int]:
        """Receive one packet; replies that cannot belong to the request are passed over until its time is up."""
        while True:
            packet, result = super().rxPacket(port, fast_option)
            if result != COMM_SUCCESS:
                port.unsure = True
                return packet, result
            refused = len(packet) == _STATUS_LENGTH and packet[PKT_ERROR] & _ERROR_BITS
            if fast_option or not self._reply_length or len(packet) == self._reply_length or refused:
                return packet, result


class SyncRead(GroupSyncRead):  # type: ignore[misc]
    """The SDK's group read, which keeps the answers of those that did answer.

    After rxPacket() `answers` has the bytes of every servo that answered, `errors` the error field (alert bit
    included) of each, `failures` the SDK's result for the others.
    """

    def __init__(self, port: BusPort, handler: PacketHandler, address: int, length: int) -> None:
        super().__init__(port, handler, address, length)
        self.answers: dict[int, bytes] = {}
        self.errors: dict[int, int] = {}
        self.failures: dict[int, int] = {}

    def rxPacket(self) -> int:
        """Receive what comes until the time of all answers is up."""
        self.answers, self.errors, self.failures = {}, {}, {}
        for servo in self.data_dict:
            data, result, error = self.ph.readRx(self.port, servo, self.data_length)
            if result == COMM_SUCCESS and len(data) == self.data_length:
                self.answers[servo], self.errors[servo] = bytes(data), error
                self.data_dict[servo] = data
            else:
                self.failures[servo] = result
        self.last_result = not self.failures
        return int(COMM_RX_TIMEOUT if self.failures else COMM_SUCCESS)
