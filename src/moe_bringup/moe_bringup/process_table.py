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
    del simulate  # no process of the table has a device
    catalogue = str(share() / 'data' / 'experts.yaml')
    return [
        Process('registry', 'moe_experts', 'registry_node', stop_stage=2, parameters={'catalogue': catalogue}),
        Process('experts', 'moe_experts', 'expert_node', stop_stage=1),
        Process('router', 'moe_router', 'router_node', stop_stage=0),
    ]


def command(process: Process, log_level: str = 'info') -> list[str]:
    """Argument vector that starts the process without ros2cli."""
    line = [str(executable_path(process)), *process.arguments]
    if process.node:
        line += ['--ros-args', '-r', f'__ns:=/{NAMESPACE}', '--log-level', log_level,
                 '--params-file', str(share() / 'config' / f'{process.name}.yaml')]
        for name, value in process.parameters.items():
            line += ['-p', f'{name}:={value}']
    return line
