"""Joints, motion and sensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moe_client.transport import Event, Transport, Values

SENSOR_TYPES = {'image_raw': 'sensor_msgs/Image', 'imu/data': 'sensor_msgs/Imu',
                'joint_states': 'sensor_msgs/JointState'}


class Robot:
    """Joints and motion."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def joints(self) -> dict[str, float]:
        """Present joint positions [rad]."""
        values = self._transport.call('hardware.joints', {})
        return dict(zip(values['name'], values['position']))

    def servos(self) -> Values:
        """State of every servo and of the e-stop: a ServoStates."""
        return self._transport.call('hardware.servos', {})

    def rates(self, topics: tuple[str, ...], seconds: float) -> dict[str, float]:
        """Measured rate of sensor topics [Hz]; keys of SENSOR_TYPES; only over ROS."""
        from moe_client.ros.messages import interface
        graph = self._transport.graph  # type: ignore[attr-defined]
        rates: dict[str, float] = graph.rates({name: interface('msg', SENSOR_TYPES[name]) for name in topics}, seconds)
        return rates

    def execute(self, command: str, timeout: float = 30.0) -> dict[str, float]:
        """Carry out a motion command (JSON, degrees); returns the positions reached [rad]."""
        return self._reached('hardware.execute', {'command': command}, timeout)

    def move(self, joint: str, degrees: float, *, relative: bool = False, timeout: float = 30.0) -> dict[str, float]:
        """Move a joint to, or by, an angle; returns the positions reached [rad]."""
        return self._reached('hardware.move', {'joint': joint, 'degrees': degrees, 'relative': relative}, timeout)

    def _reached(self, operation: str, values: dict[str, Any], timeout: float) -> dict[str, float]:
        *_, last = self._transport.stream(operation, values, timeout)
        return dict(zip(last.data['joint_names'], last.data['positions']))

    def estop(self) -> str:
        """Stop everything that moves; latched until reset_estop."""
        return str(self._transport.call('hardware.estop', {})['message'])

    def reset_estop(self) -> str:
        """Allow motion again after an e-stop."""
        return str(self._transport.call('hardware.reset_estop', {})['message'])

    def scan(self, baud_rates: list[int] | None = None) -> list[Values]:
        """Find servos on the bus, at several baud rates: ServoInfos."""
        servos: list[Values] = self._transport.call('hardware.scan', {'baud_rates': baud_rates or []})['servos']
        return servos

    def set_id(self, old: int, new: int) -> None:
        """Change a servo's id."""
        self._transport.call('hardware.set_id', {'old_id': old, 'new_id': new})

    def calibrate_imu(self, samples: int = 2000, warmup_s: float = -1.0, timeout: float = 600.0) -> Iterator[Event]:
        """Measure and save the biases of a resting IMU; yields progress and the result."""
        return self._transport.stream('hardware.calibrate_imu', {'samples': samples, 'warmup_s': warmup_s}, timeout)
