"""Runs the process table: one process per node, restarted when it dies, stopped in order, logs prefixed.

State is a file, $MOE_HOME/run/supervisor.json, replaced atomically at every change; the lock beside it keeps a
second supervisor of the same MOE_HOME out.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from moe_bringup.configuration import Configuration, ConfigurationError, read_configuration
from moe_bringup.event_log import EventLog
from moe_bringup.instruments import instruments
from moe_bringup.process_table import Process, command, moe_home, process_table
from moe_bringup.settings import LOG_FORMATS, LOG_LEVELS

TEND_S = 0.1
RESTART_DELAY_S = 0.5
RESTART_DELAY_LIMIT_S = 10.0
STABLE_S = 20.0  # a process that ran this long starts its back-off anew
GRACE_S = 8.0  # between SIGINT and SIGKILL, per stage
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the supervisor dies, so that not even SIGKILL leaves orphans."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Child:
    """A process of the table while it is supervised."""

    process: Process
    popen: subprocess.Popen[str] | None = None
    restarts: int = 0
    started_at: float = 0.0
    restart_at: float = 0.0
    last_exit: int | None = None


class Supervisor:
    """Keeps the processes of a table alive until it is told to stop.

    Args:
        processes: the table, in start order.
        home: MOE_HOME; logs go to home/logs, state to home/run.
        log_level: of every node.
        echo: print the processes' lines to standard output as well.
        log_format: of logs/app.log, "text" or "json".
    """

    def __init__(self, processes: list[Process], home: Path, log_level: str = 'info', echo: bool = True,
                 log_format: str = 'text') -> None:
        self._children = [Child(process) for process in processes]
        self._home = home
        self._log_level = log_level
        self._echo = echo
        self._log = EventLog(home / 'logs', log_format)
        self._stopping = False
        self._print_lock = threading.Lock()
        self._readers: list[threading.Thread] = []

    def stop(self) -> None:
        """Ask for an ordered shutdown; safe in a signal handler.

        A flag and no event: the handler may interrupt the main thread where that holds the event's lock, and would wait
        for it for ever.
        """
        self._stopping = True

    def run(self) -> int:
        """Start everything and stay until stop(); returns 0 when every process ended by itself within its grace."""
        try:
            for child in self._children:
                self._start(child)
                if child.process.simulated_device is not None:
                    self._wait_for_device(child)
                if self._stopping:
                    break
            while not self._stopping:
                self._tend()
                time.sleep(TEND_S)
        finally:
            clean = self._shut_down()
        return 0 if clean else 1

    def _wait_for_device(self, child: Child) -> None:
        device = child.process.simulated_device
        give_up = time.monotonic() + 10.0
        while device and not device.exists() and time.monotonic() < give_up and not self._stopping:
            time.sleep(0.02)

    def _start(self, child: Child) -> None:
        # rcl keeps logs of its own; below MOE_HOME they are found, and nothing else of the user's is touched
        environment = {**os.environ, 'ROS_LOG_DIR': str(self._home / 'logs' / 'ros'), **child.process.variables}
        try:
            child.popen = subprocess.Popen(
                command(child.process, self._log_level), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors='replace', bufsize=1, env=environment,
                start_new_session=True, preexec_fn=_die_with_parent)
        except OSError as error:
            child.popen = None
            child.restart_at = time.monotonic() + RESTART_DELAY_LIMIT_S
            self._say(child.process.name, f'cannot be started: {error}')
            return
        child.started_at = time.monotonic()
        reader = threading.Thread(target=self._relay, args=(child.process.name, child.popen), daemon=True)
        reader.start()
        self._readers = [thread for thread in self._readers if thread.is_alive()] + [reader]
        self._write_state()

    def _relay(self, name: str, popen: subprocess.Popen[str]) -> None:
        assert popen.stdout is not None
        with popen.stdout:
            for line in popen.stdout:
                self._say(name, line.rstrip('\n'))

    def _say(self, name: str, line: str) -> None:
        self._log.write(name, line)
        if self._echo:
            with self._print_lock:
                # Nobody reads a closed terminal; the log file has the line.
                with contextlib.suppress(OSError, ValueError):
                    print(f'[{name}] {line}', flush=True)

    def _tend(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.popen is not None and (code := child.popen.poll()) is not None:
                delay = RESTART_DELAY_S
                if now - child.started_at < STABLE_S:
                    delay = min(RESTART_DELAY_LIMIT_S, RESTART_DELAY_S * 2 ** min(child.restarts, 5))
                child.last_exit, child.popen = code, None
                child.restart_at = now + delay
                cause = f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
                self._say(child.process.name, f'ended with {cause}; starting again in {delay:.1f} s')
                self._write_state()
            elif child.popen is None and now >= child.restart_at:
                child.restarts += 1
                self._start(child)

    def _shut_down(self) -> bool:
        """Stop stage by stage; returns True when no process had to be killed."""
        clean = True
        for stage in sorted({child.process.stop_stage for child in self._children}):
            group = [child for child in self._children
                     if child.process.stop_stage == stage and child.popen is not None and child.popen.poll() is None]
            for child in group:
                assert child.popen is not None
                child.popen.send_signal(signal.SIGINT)
            asked_at = time.monotonic()
            for child in group:
                assert child.popen is not None
                grace = GRACE_S + child.process.report_s
                try:
                    child.popen.wait(max(0.0, asked_at + grace - time.monotonic()))
                except subprocess.TimeoutExpired:
                    clean = False
                    self._say(child.process.name, f'did not stop within {grace:.0f} s and was killed')
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.popen.pid, signal.SIGKILL)
                    child.popen.wait()
        for reader in self._readers:
            reader.join(timeout=1.0)
        self._log.close()
        (self._home / 'run' / 'supervisor.json').unlink(missing_ok=True)
        return clean

    def _write_state(self) -> None:
        state = {
            'pid': os.getpid(),
            'processes': [
                {'name': child.process.name, 'pid': child.popen.pid if child.popen else 0,
                 'restarts': child.restarts, 'last_exit': child.last_exit}
                for child in self._children],
        }
        write_whole(self._home / 'run' / 'supervisor.json', json.dumps(state))


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: readers see the old one or the new one."""
    temporary = path.with_suffix('.tmp')
    temporary.write_text(text)
    temporary.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Run the suite in the foreground; 0 after a clean stop, 1 after a kill, 2 for wrong settings, 3 when it runs."""
    options = _parser().parse_args(arguments)
    home = moe_home()
    for folder in ('logs', 'run'):
        (home / folder).mkdir(parents=True, exist_ok=True)
    try:
        configuration = read_configuration(options.config) if options.config else Configuration()
        table = process_table(options.simulate, configuration, instruments(options.profile, options.debug))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    with (home / 'run' / 'supervisor.lock').open('a+') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f'The suite of {home} is running already; `moe down` stops it, another MOE_HOME (and '
                  'ROS_DOMAIN_ID) runs a second one.', file=sys.stderr)
            return 3
        # `moe train` takes its defaults from there
        write_whole(home / 'run' / 'training.json', json.dumps(configuration.training))
        supervisor = Supervisor(table, home, options.log_level or configuration.log_level or 'info',
                                echo=not options.quiet, log_format=options.log_format or configuration.log_format)

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            supervisor.stop()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, on_signal)
        return supervisor.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='supervisor', description=main.__doc__)
    parser.add_argument('--simulate', action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument('--config', type=Path, help='file with the sections api, training, experts, inference, '
                        'database, system; config/moe.example.yaml shows every key')
    parser.add_argument('--profile', default='', metavar='KIND:PROCESS',
                        help='cpu, memory or line, for example cpu:router; the report is in MOE_HOME/profiles')
    parser.add_argument('--debug', default='', metavar='PROCESS:PORT', help='the process waits for a debugger there')
    parser.add_argument('--log-level', choices=LOG_LEVELS, help='of every node; info')
    parser.add_argument('--log-format', choices=LOG_FORMATS, help='of logs/app.log; text')
    parser.add_argument('--quiet', action='store_true', help='log files only')
    return parser


if __name__ == '__main__':
    sys.exit(main())
