"""Calibrating an IMU while it streams: wait until it is warm, collect, save, use."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable
from pathlib import Path

from moe_hardware.errors import HardwareFault, InvalidCommand, MotionError
from moe_hardware.imu.calibration import Calibration, Calibrator, save
from moe_hardware.imu.reading import Reading
from moe_hardware.imu.stream import ImuStream

SILENCE_LIMIT_S = 3.0
POLL_S = 0.1


class CalibrationCancelled(MotionError):
    """The caller has ended the calibration (CANCELLED)."""

    code = 3003


def calibrate(stream: ImuStream, samples: int, warmup_s: float, warm_after_s: float, path: Path,
              progress: Callable[[str, int], None], cancelled: Callable[[], bool]) -> Calibration:
    """Calibrate the stream's IMU, write the file and use the offsets from then on.

    Args:
        stream: that runs.
        samples: to collect, >= 100.
        warmup_s: how long the device must have been on before the first sample [s].
        warm_after_s: how long until it counts as warm in the file [s].
        path: of the file.
        progress: called with the phase ('warm up', 'collect', 'save') and the number of samples, a few times a second.
        cancelled: asked a few times a second.

    Raises:
        InvalidCommand, SafetyViolation, HardwareFault: see Calibrator and save(); nothing has changed then.
        CalibrationCancelled: cancelled() was true.
    """
    if not math.isfinite(warmup_s):
        raise InvalidCommand(f'warmup_s is {warmup_s}; give seconds, or -1 for those of the node.')
    calibrator = Calibrator(samples)
    _require(stream)
    while stream.running_s < warmup_s:
        progress('warm up', 0)
        if cancelled():
            raise CalibrationCancelled('The calibration was cancelled; nothing was saved.')
        _require(stream)
        time.sleep(min(POLL_S, max(0.0, warmup_s - stream.running_s)))
    warm = stream.running_s >= warm_after_s
    _collect(stream, calibrator, progress, cancelled)
    progress('save', calibrator.count)
    found = calibrator.result(warm)
    save(found, path)
    stream.calibration = found
    return found


def _collect(stream: ImuStream, calibrator: Calibrator, progress: Callable[[str, int], None],
             cancelled: Callable[[], bool]) -> None:
    arrivals: queue.SimpleQueue[Reading] = queue.SimpleQueue()
    listener = arrivals.put  # one object: each look at the attribute makes another
    stream.listen(listener)
    told, heard = -math.inf, time.monotonic()
    try:
        while not calibrator.complete:
            now = time.monotonic()
            if now - told >= POLL_S:
                progress('collect', calibrator.count)
                told = now
            if cancelled():
                raise CalibrationCancelled('The calibration was cancelled; nothing was saved.')
            try:
                calibrator.add(arrivals.get(timeout=POLL_S))
                heard = time.monotonic()
            except queue.Empty:
                if time.monotonic() - heard > SILENCE_LIMIT_S:
                    raise HardwareFault(f'The IMU fell silent after {calibrator.count} samples; see its diagnostics, '
                                        'then calibrate again.') from None
    finally:
        stream.unlisten(listener)


def _require(stream: ImuStream) -> None:
    if not stream.running_s:
        raise HardwareFault('The IMU is not connected; see its diagnostics, then calibrate again.')
