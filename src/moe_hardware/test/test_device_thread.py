"""The thread that owns a device: faults told once, back-off, coming back, closing in every case."""

import threading
from types import SimpleNamespace

import pytest
from processes import wait_for

from moe_hardware.device_thread import DeviceThread
from moe_hardware.errors import HardwareFault


class Lamp:
    """A device that is there when `plugged` is set."""

    def __init__(self):
        self.plugged, self.opened, self.closed, self.attempts = threading.Event(), 0, 0, 0
        self.defect = None

    def open(self):
        self.attempts += 1
        if not self.plugged.is_set():
            raise HardwareFault('The lamp is not plugged in; plug it in.')
        self.opened += 1

    def step(self, stop):
        if self.defect:
            raise self.defect
        if not self.plugged.is_set():
            raise HardwareFault('The lamp was unplugged; plug it in again.')
        stop.wait(0.005)

    def close(self):
        self.closed += 1


@pytest.fixture
def lamp():
    lamp, said = Lamp(), []
    thread = DeviceThread(lamp, 'lamp', 0.5, lambda: said.append('works'), said.append)
    thread.start()
    yield SimpleNamespace(device=lamp, thread=thread, said=said)
    thread.stop()
    assert lamp.closed == lamp.attempts


def test_waits_for_the_device_and_says_so_once(lamp):
    wait_for(lambda: lamp.device.attempts >= 3)
    assert lamp.said == ['The lamp is not plugged in; plug it in.']
    assert not lamp.thread.running and lamp.thread.fault == lamp.said[0]
    lamp.device.plugged.set()
    wait_for(lambda: lamp.thread.running)
    assert lamp.thread.fault == '' and lamp.said[1:] == ['works']


def test_comes_back_after_unplugging(lamp):
    lamp.device.plugged.set()
    wait_for(lambda: lamp.thread.running)
    lamp.device.plugged.clear()
    wait_for(lambda: not lamp.thread.running)
    lamp.device.plugged.set()
    wait_for(lambda: lamp.thread.running)
    assert lamp.thread.restarts == 1
    assert 'The lamp was unplugged; plug it in again.' in lamp.said


def test_a_defect_is_told_and_does_not_end_the_thread(lamp):
    lamp.device.plugged.set()
    lamp.device.defect = KeyError('surprise')
    wait_for(lambda: "KeyError: 'surprise'" in lamp.said)
    lamp.device.defect = None
    wait_for(lambda: lamp.thread.running)


def test_stop_closes_the_device(lamp):
    lamp.device.plugged.set()
    wait_for(lambda: lamp.thread.running)
    lamp.thread.stop()
    assert lamp.device.closed == lamp.device.attempts and not lamp.thread.running
