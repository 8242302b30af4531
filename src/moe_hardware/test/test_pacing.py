"""A steady rate, its measurement, and no burst after a pause."""

import threading
import time

from processes import wait_for

from moe_hardware.pacing import Pacer, RateMeter


def test_a_paced_loop_is_measured_at_its_rate():
    pacer, meter, never = Pacer(50.0), RateMeter(), threading.Event()
    assert meter.rate() == 0.0
    for _ in range(30):
        pacer.wait(never)
        meter.tick()
    assert 20.0 < meter.rate() <= 51.0


def test_lost_time_is_not_caught_up():
    pacer, never = Pacer(20.0), threading.Event()
    pacer.wait(never)
    time.sleep(0.5)
    begin = time.monotonic()
    for _ in range(4):
        pacer.wait(never)
    assert time.monotonic() - begin > 0.1  # of the 0.2 s that four turns take, at most two come at once


def test_stop_ends_the_wait():
    stop = threading.Event()
    thread = threading.Thread(target=Pacer(0.001).wait, args=(stop,))
    thread.start()
    stop.set()
    wait_for(lambda: not thread.is_alive())


def test_the_measured_rate_falls_to_zero_in_silence():
    meter = RateMeter(window_s=0.1)
    for _ in range(5):
        meter.tick()
    wait_for(lambda: meter.rate() == 0.0)
