"""Processes that tests start: simulators and nodes, ended whatever happens."""

import signal
import subprocess
import sys
import time
from pathlib import Path


def wait_for(condition, timeout=20.0, what='condition'):
    """Return the first true value of condition()."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f'{what} not met within {timeout} s')


class Module:
    """`python -m module arguments...`, its output in a file; a context manager that ends it."""

    def __init__(self, log: Path, module: str, *arguments: str):
        self.log = log
        with log.open('ab') as output:
            self.popen = subprocess.Popen([sys.executable, '-m', module, *map(str, arguments)],
                                          stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()

    @property
    def output(self):
        """What it has printed so far."""
        return self.log.read_text(errors='replace')

    def end(self, number=signal.SIGTERM, timeout=15.0):
        """Send a signal and return the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(timeout)


def sim_imu(link: Path, *arguments: str):
    """Start the simulated IMU; returns once its link is there."""
    process = Module(link.with_name('sim_imu.log'), 'moe_hardware.simulation.sim_imu', '--link', link, *arguments)
    wait_for(lambda: link.is_symlink() or process.popen.poll() is not None, what='link of the simulator')
    return process
