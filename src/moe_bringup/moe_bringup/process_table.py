"""The processes of the suite: one table that `moe up` and the launch files both read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory

NAMESPACE = 'moe'


@dataclass(frozen=True)
class Process:
    """One process: a node (it has a config file and ROS arguments) or a simulator (it has neither).

    Processes start in the order of the table and stop in ascending `stop_stage`: what moves the robot stops
    first, what the others need stops last.
    """

    name: str
    package: str
    executable: str
    stop_stage: int
    node: bool = True
    parameters: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    simulated_device: Path | None = None


def moe_home() -> Path:
    """Folder of all that the suite writes: MOE_HOME, by default ~/.local/share/moe."""
    return Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()


def share() -> Path:
    """Installed folder with launch/, config/ and data/."""
    return Path(get_package_share_directory('moe_bringup'))


def executable_path(process: Process) -> Path:
    """Path of the installed executable, as `ros2 run` finds it; an absolute one stays as it is."""
    return Path(get_package_prefix(process.package)) / 'lib' / process.package / process.executable


def process_table(simulate: bool) -> list[Process]:
    """All processes, in start order; with `simulate` the devices are simulators on pseudo-terminals."""
    run = moe_home() / 'run'
    servo_port, imu_port = run / 'servos', run / 'imu'
    simulators = [
        Process('sim_servos', 'moe_hardware', 'sim_servos', stop_stage=3, node=False,
                arguments=('--ids', '1', '2', '--link', str(servo_port),
                           '--journal', str(run / 'servos.journal.jsonl')),
                simulated_device=servo_port),
        Process('sim_imu', 'moe_hardware', 'sim_imu', stop_stage=3, node=False,
                arguments=('--link', str(imu_port)), simulated_device=imu_port),
    ] if simulate else []
    catalogue = str(share() / 'data' / 'experts.yaml')
    return [
        *simulators,
        Process('registry', 'moe_experts', 'registry_node', stop_stage=3, parameters={'catalogue': catalogue}),
        Process('experts', 'moe_experts', 'expert_node', stop_stage=2),
        Process('router', 'moe_router', 'router_node', stop_stage=1),
        Process('training', 'moe_training', 'training_node', stop_stage=1),
        Process('servos', 'moe_hardware', 'servo_node', stop_stage=0,
                parameters={'port_name': str(servo_port)} if simulate else {}),
        Process('motion', 'moe_hardware', 'motion_node', stop_stage=0),
        Process('imu', 'moe_hardware', 'imu_node', stop_stage=1,
                parameters={'port_name': str(imu_port)} if simulate else {}),
        # images are larger than Fast DDS's shared memory by default, and half of them would be lost
        Process('camera', 'moe_hardware', 'camera_node', stop_stage=1,
                parameters={'video_device': 'synthetic'} if simulate else {},
                environment={'FASTDDS_DEFAULT_PROFILES_FILE': str(share() / 'config' / 'fastdds_images.xml')}),
        Process('gateway', 'moe_client', 'gateway_node', stop_stage=0, parameters=_ports()),
    ]


def _ports() -> dict[str, str]:
    """The gateway's ports where the environment names others: several suites on one machine need several."""
    wanted = {'api.port': 'MOE_API_PORT', 'metrics.port': 'MOE_METRICS_PORT'}
    return {parameter: os.environ[variable] for parameter, variable in wanted.items() if os.environ.get(variable)}


def command(process: Process, log_level: str = 'info') -> list[str]:
    """Argument vector that starts the process without ros2cli."""
    line = [str(executable_path(process)), *process.arguments]
    if process.node:
        line += ['--ros-args', '-r', f'__ns:=/{NAMESPACE}', '--log-level', log_level,
                 '--params-file', str(share() / 'config' / f'{process.name}.yaml')]
        for name, value in process.parameters.items():
            line += ['-p', f'{name}:={value}']
    return line
