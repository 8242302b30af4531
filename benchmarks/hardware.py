"""What the hardware nodes hold: bus rate, faults on the bus, images across processes, the camera, a command's way.

    ./moe exec python benchmarks/hardware.py [--quick] [--only loop faults images camera command]

Everything runs against the byte-level simulators, which share the cores with what is measured. The whole takes about
half an hour; --quick shortens the runs and writes hardware_quick.json.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measurement import Figure, figure, report

ROOT = Path(__file__).parents[1]
SERVOS = range(1, 7)
FAST = 1000000
GOAL_POSITION = 116
LOOP_HZ = 100.0
FAULT_RATE = 0.05
WORKERS, PIECES = 6, 400
WIDTH, HEIGHT = 640, 480


@contextlib.contextmanager
def process(module: str, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of moe_hardware until the end of the block."""
    with subprocess.Popen([sys.executable, '-m', f'moe_hardware.{module}', *map(str, arguments)],
                          stdout=subprocess.DEVNULL, env=os.environ | environment) as started:
        try:
            yield started
        finally:
            started.terminate()


@contextlib.contextmanager
def simulated_servos(folder: Path, timing: str, ids: range = SERVOS) -> Iterator[tuple[Path, Path]]:
    """Simulated servos in a process of their own; gives the link and the journal."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    link, journal = folder / 'servos', folder / 'journal.jsonl'
    with process('simulation.sim_servos', '--ids', *ids, '--link', link, '--journal', journal,
                 '--baud-rate', FAST, '--timing', timing):
        until(link.is_symlink, 'the simulated servos')
        yield link, journal


def until(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Wait for a condition and return its value. Raises SystemExit when it does not come."""
    give_up = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise SystemExit(f'{what} did not come within {timeout:.0f} s.')
        time.sleep(0.01)
    return value


def goals(journal: Path) -> list[dict[str, Any]]:
    """Goal positions that reached the servos, in order."""
    lines = (json.loads(line) for line in journal.read_text().splitlines())
    return [line for line in lines if line['address'] == GOAL_POSITION and not line['error']]


def written(bus: Any, servo: int, register: Any, value: int) -> bool:
    """Write a register; False when its confirmation did not come in time, as on a busy machine."""
    from moe_hardware.dynamixel.bus import ServoSilent

    try:
        bus.write(servo, register, value)
    except ServoSilent:
        return False
    return True


# --- the control loop ----------------------------------------------------------------------------------------------

def control_loop(folder: Path, timing: str, seconds: float, rate: float | None) -> tuple[list[float], int, float]:
    """Write and read six servos; returns the rate of every second [Hz], lost commands, share of a core used.

    Args:
        folder: for the simulator.
        timing: wire or ideal.
        seconds: how long [s].
        rate: to keep [Hz]; None is as fast as it goes.
    """
    import threading

    from moe_hardware.dynamixel import control_table as ct
    from moe_hardware.dynamixel.bus import Bus
    from moe_hardware.pacing import Pacer

    with simulated_servos(folder, timing) as (link, journal):
        bus = Bus(str(link), FAST)
        bus.open()
        for servo in SERVOS:
            for register, value in ((ct.RETURN_DELAY_TIME, 0), (ct.TORQUE_ENABLE, 1)):
                until(lambda one=servo, at=register, to=value: written(bus, one, at, to), 'a setting')
        stop, pacer = threading.Event(), Pacer(rate) if rate else None
        ends, unread, number = [time.monotonic()], 0, 0
        used, begin = time.process_time(), time.monotonic()
        while time.monotonic() - begin < seconds:
            if pacer is not None:
                pacer.wait(stop)
            bus.sync_write(ct.GOAL_POSITION, {servo: 1500 + number % 1000 for servo in SERVOS})
            answers, _ = bus.sync_read(SERVOS, ct.PRESENT_VELOCITY, ct.PRESENT_POSITION)
            unread += len(SERVOS) - len(answers)
            ends.append(time.monotonic())
            number += 1
        share = (time.process_time() - used) / (ends[-1] - begin)
        until(lambda: bus.read(SERVOS[-1], ct.GOAL_POSITION) == 1500 + (number - 1) % 1000, 'the last goal')
        bus.close()
        lost = len(SERVOS) * number - len(goals(journal)) + unread
    counts = np.histogram(ends, np.arange(ends[0], ends[-1], 1.0))[0]
    return [float(count) for count in counts], lost, share


def loop_figures(folder: Path, quick: bool) -> list[Figure]:
    """The loop at the timing of a wire, kept at a rate, and as fast as an ideal line lets it."""
    rates, lost, share = control_loop(folder, 'wire', 6.0 if quick else 60.0, LOOP_HZ)
    fastest, _, _ = control_loop(folder, 'wire', 4.0 if quick else 15.0, None)
    ideal, lost_ideal, share_ideal = control_loop(folder, 'ideal', 4.0 if quick else 15.0, None)
    return [
        figure(f'control loop, 6 servos, wire timing 1 Mbps, kept at {LOOP_HZ:.0f} Hz', rates, 'Hz', least=98),
        Figure('  its slowest second', min(rates), 'Hz', '>= 98', min(rates) >= 98),
        Figure('  lost commands and answers', lost, '', '0', lost == 0),
        Figure('  share of a core', 100 * share, '%', '<= 10', share <= 0.1),
        figure('  the same, as fast as it goes', fastest, 'Hz'),
        figure('control loop, 6 servos, ideal line', ideal, 'Hz', least=500),
        Figure('  lost commands and answers', lost_ideal, '', '0', lost_ideal == 0),
        Figure('  share of a core', 100 * share_ideal, '%')]


# --- faults --------------------------------------------------------------------------------------------------------

def transact(seed: int, count: int, folder: Path) -> dict[str, int]:
    """Make transactions on a line that damages answers; every value read is compared with what may be there."""
    from moe_hardware.dynamixel import control_table as ct
    from moe_hardware.dynamixel.bus import Bus, ServoSilent
    from moe_hardware.simulation.servo_bus import SimulatedBus

    ids, draw = (1, 2, 3), random.Random(seed)
    registers = (ct.GOAL_POSITION, ct.PROFILE_VELOCITY, ct.PROFILE_ACCELERATION, ct.LED, ct.POSITION_P_GAIN,
                 ct.POSITION_D_GAIN, ct.GOAL_PWM)
    tops = {ct.GOAL_POSITION: 4095, ct.LED: 1, ct.GOAL_PWM: 885}
    found = {'transactions': 0, 'failed': 0, 'wrong': 0}
    with SimulatedBus(ids, folder / f'faults_{seed}', FAST, fault_rate=FAULT_RATE, seed=seed) as simulated:
        bus = Bus(str(simulated.path), FAST)
        bus.open()
        may = {(servo, register): {simulated.servos[servo].get(register)} for servo in ids for register in registers}
        while found['transactions'] < count:
            servo, register, kind = draw.choice(ids), draw.choice(registers), draw.random()
            found['transactions'] += 1
            try:
                if kind < 0.3:
                    value = draw.randint(0, tops.get(register, 10000))
                    may[servo, register].add(value)  # also when the confirmation gets lost
                    bus.write(servo, register, value)
                    may[servo, register] = {value}
                elif kind < 0.7:
                    value = bus.read(servo, register)
                    found['wrong'] += value not in may[servo, register]
                    may[servo, register] = {value}
                elif kind < 0.8:
                    found['wrong'] += bus.read(servo, ct.PRESENT_INPUT_VOLTAGE) != 120
                else:
                    answers, _ = bus.sync_read(ids, register, register)
                    for one, data in answers.items():
                        found['wrong'] += register.decode(data) not in may[one, register]
                    found['failed'] += len(answers) < len(ids)
            except ServoSilent:
                found['failed'] += 1
        found['answers lost or damaged'] = sum(bus.silences.values()) + sum(bus.damages.values())
        bus.close()
    return found


def transact_piece(piece: tuple[int, int, Path]) -> dict[str, int]:
    """Make the transactions of a piece of the whole."""
    return transact(*piece)


def fault_figures(folder: Path, quick: bool) -> list[Figure]:
    """A million transactions in several processes at once: most of the time passes in waiting for lost answers."""
    count = 20000 if quick else 1000000
    begin = time.monotonic()
    total: Counter[str] = Counter()
    pieces = [(seed, count // PIECES, folder) for seed in range(PIECES)]
    with multiprocessing.get_context('spawn').Pool(WORKERS) as pool:
        for part in pool.imap_unordered(transact_piece, pieces):
            total.update(part)
            print(f'  {total["transactions"]} transactions, {total["wrong"]} wrong values', flush=True)
    wrong = total['wrong']
    return [
        Figure(f'bus transactions, {FAULT_RATE:.0%} of the answers damaged', total['transactions'], '',
               '' if quick else '1000000'),
        Figure('  stale or wrong values', wrong, '', '0', wrong == 0),
        Figure('  answers found lost or damaged', total['answers lost or damaged'], ''),
        Figure('  not answered after the retry, said so', total['failed'], ''),
        Figure('  wall time', time.monotonic() - begin, 's')]


# --- images --------------------------------------------------------------------------------------------------------

class Listener:
    """A node of this process that keeps when each message came, by its stamp [ns]."""

    def __init__(self, topics: dict[str, tuple[type, Any]]) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.arrivals: dict[str, dict[int, int]] = {topic: {} for topic in topics}
        rclpy.init()
        self.node = rclpy.create_node('benchmark', namespace='moe')
        for topic, (interface, qos) in topics.items():
            self.node.create_subscription(interface, topic, self._keep(self.arrivals[topic]), qos)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    @staticmethod
    def _keep(arrivals: dict[int, int]) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            arrivals[message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec] = time.time_ns()
        return keep

    def spin(self, until_true: Callable[[], bool]) -> None:
        """Take messages until a condition is true."""
        from rclpy.executors import ExternalShutdownException

        with contextlib.suppress(ExternalShutdownException):  # the end of the benchmark
            while not until_true():
                self._executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        """End the node."""
        import rclpy

        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


def shipped_environment() -> dict[str, str]:
    """What the suite starts its camera node with."""
    from moe_bringup.process_table import process_table

    return next(dict(row.environment) for row in process_table(True) if row.name == 'camera')


def image_figures(_folder: Path, quick: bool) -> list[Figure]:
    """Images of the camera node to a best-effort subscriber here; the small reliable camera_info says what was sent."""
    from rclpy.qos import QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image

    seconds, rate = (10.0 if quick else 60.0), 30.0
    with process('ros.camera_node', '--ros-args', '-r', '__ns:=/moe', '-p', 'video_device:=synthetic', '-p',
                 f'framerate:={rate}', '-p', f'image_width:={WIDTH}', '-p', f'image_height:={HEIGHT}',
                 **shipped_environment()):
        listener = Listener({'image_raw': (Image, qos_profile_sensor_data), 'camera_info': (
            CameraInfo, QoSProfile(depth=1000))})
        images, sent = listener.arrivals['image_raw'], listener.arrivals['camera_info']
        listener.spin(lambda: len(images) > rate)  # discovery is over
        begin, end = time.time_ns(), time.monotonic() + seconds
        listener.spin(lambda: time.monotonic() > end)
        listener.close()
    stamps = [stamp for stamp in sent if begin <= stamp <= time.time_ns() - 500_000_000]
    missing = sum(stamp not in images for stamp in stamps)
    latencies = [(images[stamp] - stamp) / 1e6 for stamp in stamps if stamp in images]
    p99 = float(np.percentile(latencies, 99))
    return [
        Figure(f'images 640x480 at {rate:.0f} Hz, best effort, other process: sent', len(stamps) / seconds, 'Hz'),
        Figure('  lost', 100 * missing / len(stamps), '%', '<= 1', missing <= 0.01 * len(stamps)),
        Figure('  capture to callback', float(np.median(latencies)), 'ms', 'p99 <= 30', p99 <= 30.0, p99)]


# --- the camera ----------------------------------------------------------------------------------------------------

def camera_figures(folder: Path, quick: bool) -> list[Figure]:
    """Read, fill, encode and publish in this process, as fast as it goes, with a subscriber to both in another."""
    import cv2
    import rclpy
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CompressedImage, Image

    from moe_hardware.camera.source import Kind
    from moe_hardware.camera.video import RecordingSource
    from moe_hardware.ros import image_conversion
    from moe_hardware.ros.publishing import SENSOR_QOS

    path = folder / 'camera.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 30.0, (WIDTH, HEIGHT))
    noise = np.random.default_rng(1).integers(0, 40, (HEIGHT, WIDTH, 3), np.uint8)
    ramp = np.linspace(0, 200, WIDTH).astype(np.uint8)[None, :, None]
    for number in range(60):
        writer.write(np.roll(ramp, 9 * number, axis=1) + noise)
    writer.release()
    source = RecordingSource(str(path), Kind.FILE, True, 2.0)
    source.open()
    os.environ.update(shipped_environment())
    listening = subprocess.Popen([sys.executable, __file__, '--listen'])
    rclpy.init()
    node = rclpy.create_node('camera', namespace='moe')
    raw = node.create_publisher(Image, 'image_raw', SENSOR_QOS)
    compressed = node.create_publisher(CompressedImage, 'image_raw/compressed', SENSOR_QOS)
    rows: list[list[float]] = []
    try:
        until(lambda: raw.get_subscription_count() and compressed.get_subscription_count(), 'the subscriber')
        for number in range(60 if quick else 600):
            marks = [time.monotonic()]
            source.wait()
            image = source.image()
            marks.append(time.monotonic())
            head = image_conversion.header(Time(sec=number), 'camera_optical_frame')
            filled = image_conversion.image_message(image, head)
            marks.append(time.monotonic())
            raw.publish(filled)
            marks.append(time.monotonic())
            compressed.publish(image_conversion.compressed_message(image, 80, head))
            marks.append(time.monotonic())
            rows.append([1000 * (later - earlier) for earlier, later in itertools.pairwise(marks)])
    finally:
        listening.terminate()
        listening.wait()
        node.destroy_node()
        rclpy.try_shutdown()
        source.close()
    stages = list(zip(*rows))
    whole = [sum(row) for row in rows]
    rate = 1000.0 / (sum(whole) / len(whole))
    names = ('read and decode MJPEG', 'fill image_raw', 'publish image_raw', 'encode and publish compressed')
    return [Figure('camera pipeline 640x480, raw and compressed', rate, 'Hz', '>= 43', rate >= 43),
            Figure('  head-room over 30 Hz', rate / 30.0, 'x'), figure('  a frame', whole, 'ms'),
            *(figure(f'  {name}', stage, 'ms') for name, stage in zip(names, stages))]


def listen() -> None:
    """Take images of both topics until SIGTERM; the other process of camera_figures()."""
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CompressedImage, Image

    Listener({'image_raw': (Image, qos_profile_sensor_data), 'image_raw/compressed': (
        CompressedImage, qos_profile_sensor_data)}).spin(lambda: False)


# --- a command's way -----------------------------------------------------------------------------------------------

def command_figures(folder: Path, quick: bool) -> list[Figure]:
    """From a command published here to its goal in the simulated servos' journal; one machine, one monotonic clock."""
    import rclpy
    from std_msgs.msg import Float64MultiArray

    with simulated_servos(folder, 'wire', range(1, 3)) as (link, journal), \
            process('ros.servo_node', '--ros-args', '-r', '__ns:=/moe', '-p', f'port_name:={link}',
                    '-p', f'baud_rate:={FAST}', '-p', 'publish_rate:=100.0'):
        rclpy.init()
        node = rclpy.create_node('benchmark', namespace='moe')
        publisher = node.create_publisher(Float64MultiArray, 'commands', 1)
        until(publisher.get_subscription_count, 'the servo node')
        until(lambda: '"torque_enable"' in journal.read_text(), 'torque')
        time.sleep(1.0)
        sent = []
        for number in range(50 if quick else 500):
            sent.append(time.monotonic())
            publisher.publish(Float64MultiArray(data=[0.2 * (-1) ** number, 0.0]))
            time.sleep(random.Random(number).uniform(0.25, 0.35))  # the motion before is over; no fixed phase
        node.destroy_node()
        rclpy.try_shutdown()
        reached = [line['monotonic'] for line in goals(journal) if line['id'] == 1]
    found = [1000 * (min(time_ for time_ in reached if time_ > begin) - begin) for begin in sent]
    p99 = float(np.percentile(found, 99))
    return [Figure('command published to goal on the bus', float(np.median(found)), 'ms', 'p99 <= 20', p99 <= 20.0,
                   p99)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--quick', action='store_true', help='short runs')
    parser.add_argument('--listen', action='store_true', help=argparse.SUPPRESS)
    parts: dict[str, Callable[[Path, bool], list[Figure]]] = {
        'loop': loop_figures, 'command': command_figures, 'images': image_figures, 'camera': camera_figures,
        'faults': fault_figures}
    parser.add_argument('--only', nargs='+', choices=parts, default=list(parts), metavar='PART',
                        help=f'of {", ".join(parts)}')
    options = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', '88')
    if options.listen:
        listen()
        return
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            print(f'{name} ...', flush=True)
            figures += parts[name](Path(folder), options.quick)
    report('hardware_quick' if options.quick else 'hardware', figures)


if __name__ == '__main__':
    main()
