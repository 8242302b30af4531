"""A stop asked for by signal handlers, wherever they interrupt."""

import os
import signal
import threading

import pytest
from conftest import NodeProcess, wait_for

from moe_client.ros.stop import Stop


@pytest.fixture
def stop():
    asked = Stop()
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: asked.set())
    yield asked
    signal.signal(signal.SIGUSR1, before)


def test_nobody_asked(stop):
    assert not stop.wait(0.01)
    assert not stop.is_set()


def test_a_handler_that_interrupts_the_wait_ends_it(stop):
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    assert stop.wait(20.0)
    assert stop.is_set()
    assert stop.wait(20.0)
    timer.join()


def test_handlers_may_interrupt_each_other(stop):
    signals = threading.Thread(target=lambda: [os.kill(os.getpid(), signal.SIGUSR1) for _ in range(200)])
    signals.start()
    while signals.is_alive():
        stop.wait(0.001)
    signals.join()
    assert stop.wait(20.0)


@pytest.mark.parametrize('workers', [1, 2])
def test_a_gateway_stopped_before_it_serves_ends(tmp_path, workers):
    node = NodeProcess(tmp_path, 'moe_client', 'gateway_node',
                       **{'api.port': 0, 'metrics.port': 0, 'api.workers': workers})
    try:  # said just before the application is made, which takes a while
        wait_for(lambda: 'serves the dashboard' in node.log.read_text(), what='its address')
    finally:
        assert node.end() == 0, node.log.read_text()
    assert not (tmp_path / 'run' / 'gateway.json').exists()
