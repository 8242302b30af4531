"""The processes of the suite: one table that `moe up` and the launch files both read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_prefix, get_package_share_directory

from moe_bringup.configuration import Configuration, ConfigurationError
from moe_bringup.instruments import Instrument

NAMESPACE = 'moe'
PARTS = ('registry', 'experts', 'router', 'training', 'hardware', 'gateway')  # each has a launch file of its own
_THREAD_LIMITS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
REPORT_S = 60.0  # a million allocations on a busy robot take their time


@dataclass(frozen=True)
class Process:
    """One process: a node (it has a config file and ROS arguments) or a simulator (it has neither).

    Processes start in the order of the table and stop in ascending `stop_stage`: what moves the robot stops
    first, what the others need stops last.

    Attributes:
        part: launch file that starts it, one of PARTS.
        lifecycle: it is a managed node, which configures and activates itself unless its `autostart` is off.
        config: stem of its file in config/; '' = the name.
        nice: added to the priority value; positive gives way to others.
        cpu_affinity: cores it may use; () = all.
        threads: limit of the numerical libraries' thread pools; 0 = none.
    """

    name: str
    package: str
    executable: str
    stop_stage: int
    part: str = ''
    node: bool = True
    lifecycle: bool = False
    config: str = ''
    parameters: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    nice: int = 0
    cpu_affinity: tuple[int, ...] = ()
    threads: int = 0
    simulated_device: Path | None = None
    instrument: Instrument | None = None

    @property
    def report_s(self) -> float:
        """Time that a stop leaves it in addition to write a profiler's report [s]."""
        return REPORT_S if self.instrument and self.instrument.profile else 0.0

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables it is started with, the thread limits among them."""
        limits = dict.fromkeys(_THREAD_LIMITS, str(self.threads)) if self.threads else {}
        return {**limits, **self.environment}


def moe_home() -> Path:
    """Folder of all that the suite writes: MOE_HOME, by default ~/.local/share/moe."""
    return Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()


def share() -> Path:
    """Installed folder with launch/, config/ and data/."""
    return Path(get_package_share_directory('moe_bringup'))


def executable_path(process: Process) -> Path:
    """Path of the installed executable, as `ros2 run` finds it; an absolute one stays as it is."""
    return Path(get_package_prefix(process.package)) / 'lib' / process.package / process.executable


def config_file(process: Process) -> Path:
    """The parameter overrides that the suite ships for a node."""
    return share() / 'config' / f'{process.config or process.name}.yaml'


def process_table(simulate: bool, configuration: Configuration | None = None,
                  instruments: tuple[Instrument, ...] = ()) -> list[Process]:
    """All processes, in start order; with `simulate` the devices are simulators on pseudo-terminals.

    Raises ConfigurationError where the configuration or an instrument names a process that is not there.
    """
    configuration = configuration or Configuration()
    table = [*_brain(configuration.replicas), *_hardware(simulate),
             Process('gateway', 'moe_client', 'gateway_node', 0, 'gateway', parameters=_ports())]
    names = [process.name for process in table]
    for wanted in (*configuration.processes, *(one.process for one in instruments)):
        if wanted not in names:
            raise ConfigurationError(f'There is no process {wanted!r}; there are {", ".join(names)}.')
    by_name = {one.process: one for one in instruments}
    return [_configured(process, configuration, by_name.get(process.name)) for process in table]


def _brain(replicas: int) -> list[Process]:
    catalogue = str(share() / 'data' / 'experts.yaml')
    experts = ['experts', *(f'experts_{number}' for number in range(2, replicas + 1))]
    return [
        Process('registry', 'moe_experts', 'registry_node', 3, 'registry', parameters={'catalogue': catalogue}),
        *(Process(name, 'moe_experts', 'expert_node', 2, 'experts', config='experts',
                  parameters={'replica': number} if number else {}) for number, name in enumerate(experts)),
        Process('router', 'moe_router', 'router_node', 1, 'router',
                parameters={'expert_nodes': experts} if replicas > 1 else {}),
        # answers come before training, whose workers lower their priority further
        Process('training', 'moe_training', 'training_node', 1, 'training', nice=5),
    ]


def _hardware(simulate: bool) -> list[Process]:
    run = moe_home() / 'run'
    servo_port, imu_port = run / 'servos', run / 'imu'
    simulators = [
        Process('sim_servos', 'moe_hardware', 'sim_servos', 3, 'hardware', node=False,
                arguments=('--ids', '1', '2', '--link', str(servo_port),
                           '--journal', str(run / 'servos.journal.jsonl')),
                simulated_device=servo_port),
        Process('sim_imu', 'moe_hardware', 'sim_imu', 3, 'hardware', node=False,
                arguments=('--link', str(imu_port)), simulated_device=imu_port),
    ] if simulate else []
    return [
        *simulators,
        Process('servos', 'moe_hardware', 'servo_node', 0, 'hardware', lifecycle=True, threads=1,
                parameters={'port_name': str(servo_port)} if simulate else {}),
        Process('motion', 'moe_hardware', 'motion_node', 0, 'hardware', lifecycle=True, threads=1),
        Process('imu', 'moe_hardware', 'imu_node', 1, 'hardware', lifecycle=True, threads=1,
                parameters={'port_name': str(imu_port)} if simulate else {}),
        # images are larger than Fast DDS's shared memory by default, and half of them would be lost
        Process('camera', 'moe_hardware', 'camera_node', 1, 'hardware', lifecycle=True,
                parameters={'video_device': 'synthetic'} if simulate else {},
                environment={'FASTDDS_DEFAULT_PROFILES_FILE': str(share() / 'config' / 'fastdds_images.xml')}),
    ]


def _configured(process: Process, configuration: Configuration, instrument: Instrument | None) -> Process:
    parameters = {**configuration.parameters.get(process.config or process.name, {}), **process.parameters}
    if not process.node:
        parameters = {}
    wishes = configuration.processes.get(process.name, {})
    return replace(process, parameters=parameters, instrument=instrument, **wishes)


def _ports() -> dict[str, Any]:
    """The gateway's ports where the environment names others: several suites on one machine need several."""
    wanted = {'api.port': 'MOE_API_PORT', 'metrics.port': 'MOE_METRICS_PORT'}
    return {parameter: int(os.environ[variable]) for parameter, variable in wanted.items()
            if os.environ.get(variable, '').isdigit()}


def prefix(process: Process) -> list[str]:
    """What stands before the executable: priority, cores, profiler or debugger; each becomes the next by exec."""
    line: list[str] = []
    if process.nice:
        line += ['nice', '-n', str(process.nice)]
    if process.cpu_affinity:
        line += ['taskset', '-c', ','.join(map(str, process.cpu_affinity))]
    if process.instrument is not None:
        line += process.instrument.prefix(moe_home())
    return line


def command(process: Process, log_level: str = 'info') -> list[str]:
    """Argument vector that starts the process without ros2cli."""
    line = [*prefix(process), str(executable_path(process)), *process.arguments]
    if process.node:
        line += ['--ros-args', '-r', f'__ns:=/{NAMESPACE}', '--log-level', log_level,
                 '--params-file', str(config_file(process))]
        if process.config:  # a replica: the executable's own name is that of the first
            line += ['-r', f'__node:={process.name}']
        for name, value in process.parameters.items():
            line += ['-p', f'{name}:={_ros_value(value)}']
    return line


def _ros_value(value: Any) -> str:
    """A value as rcl's YAML reads it back; plain text stays plain."""
    if isinstance(value, str) and value and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)
