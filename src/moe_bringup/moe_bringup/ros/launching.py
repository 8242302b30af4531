"""Launch descriptions made from the process table; every file of launch/ is one call of this."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnShutdown
from launch.events import matches_action
from launch.events.process import SignalProcess
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from moe_bringup.configuration import Configuration, read_configuration
from moe_bringup.instruments import instruments
from moe_bringup.process_table import (
    PARTS,
    Process,
    config_file,
    executable_path,
    moe_home,
    prefix,
    process_table,
    share,
)
from moe_bringup.settings import LOG_LEVELS

RESPAWN_DELAY_S = 1.0
STAGE_S = 4  # after a shutdown, stage by stage, until a process that has not ended is told by SIGTERM

# name, default, description, choices
ARGUMENTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ('namespace', 'moe', 'namespace of every node', ()),
    ('params_file', '', 'YAML file of parameters that override those of config/', ()),
    ('config', '', 'file with the sections api, training, experts, inference, database, system', ()),
    ('log_level', '', 'of every node; by default that of the configuration file, or info', ('', *LOG_LEVELS)),
    ('use_sim_time', 'false', 'take the time from /clock', ('true', 'false')),
    ('simulate', 'true', 'simulated servos, IMU and camera instead of devices', ('true', 'false')),
    ('autostart', 'true', 'drivers configure and activate themselves; false leaves that to a lifecycle manager',
     ('true', 'false')),
    ('database_url_file', '', 'file that holds the URL of the Postgres server; by default MOE_DATABASE_URL, or an '
     'embedded server', ()),
    ('experts_replicas', '0', 'expert nodes on this machine; 0 = as the configuration file says, or 1', ()),
    ('profile', '', 'KIND:PROCESS, where KIND is cpu, memory or line; the report is in MOE_HOME/profiles', ()),
    ('debug', '', 'PROCESS:PORT; the process waits there for a debugger (debugpy)', ()),
)


def description(part: str) -> LaunchDescription:
    """The launch description of one part of the suite, usable alone."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=_start, args=[part])])


def whole(folder: Path) -> LaunchDescription:
    """The launch description of the suite: every part's launch file, found in `folder`."""
    return LaunchDescription([*arguments(), *(
        IncludeLaunchDescription(PythonLaunchDescriptionSource(str(folder / f'{part}.launch.py')),
                                 launch_arguments=[(name, LaunchConfiguration(name)) for name, *_ in ARGUMENTS])
        for part in PARTS)])


def arguments() -> list[DeclareLaunchArgument]:
    """The arguments, the same ones in every file."""
    return [DeclareLaunchArgument(name, default_value=default, description=text,
                                  **({'choices': list(choices)} if choices else {}))
            for name, default, text, choices in ARGUMENTS]


def _start(context: LaunchContext, part: str) -> list[LaunchDescriptionEntity]:
    given = {name: str(LaunchConfiguration(name).perform(context)) for name, *_ in ARGUMENTS}
    for folder in ('run', 'profiles'):
        (moe_home() / folder).mkdir(parents=True, exist_ok=True)
    actions: list[LaunchDescriptionEntity] = []
    configuration, level = _configuration(given)
    for process in process_table(given['simulate'] == 'true', configuration,
                                 instruments(given['profile'], given['debug'])):
        if process.part == part:
            actions += _actions(process, given, level)
    if part == 'hardware':
        actions += _robot_state_publisher(given)
    return actions


def _configuration(given: dict[str, str]) -> tuple[Configuration, str]:
    """What the arguments ask for, and the log level."""
    configuration = read_configuration(Path(given['config'])) if given['config'] else Configuration()
    replicas = int(given['experts_replicas']) or configuration.replicas
    level = given['log_level'] or configuration.log_level or 'info'
    return Configuration(configuration.parameters, configuration.training, configuration.processes, replicas), level


def _actions(process: Process, given: dict[str, str], level: str) -> list[LaunchDescriptionEntity]:
    """A process, and that it hears of a shutdown before its stage's patience ends."""
    # as with `moe up`, who is profiled has the time to write the report
    late = 1 + STAGE_S * process.stop_stage + process.report_s
    settings: dict[str, Any] = {
        'respawn': True, 'respawn_delay': RESPAWN_DELAY_S, 'output': 'screen',
        'sigterm_timeout': str(late), 'sigkill_timeout': '30', 'additional_env': _variables(process, given)}
    if line := prefix(process):
        settings['prefix'] = ' '.join(map(shlex.quote, line))
    if not process.node:
        return [ExecuteProcess(cmd=[str(executable_path(process)), *process.arguments], name=process.name, **settings)]
    values = {**process.parameters, 'use_sim_time': given['use_sim_time'] == 'true',
              **({'autostart': given['autostart'] == 'true'} if process.lifecycle else {})}
    own = [given['params_file']] if given['params_file'] else []
    kind = LifecycleNode if process.lifecycle else Node
    secured = os.environ.get('ROS_SECURITY_ENABLE') == 'true'
    node = kind(package=process.package, executable=process.executable, name=process.name, exec_name=process.name,
                namespace=given['namespace'], parameters=[str(config_file(process)), values, *own],
                ros_arguments=['--log-level', level, *(['--enclave', f'/moe/{process.name}'] if secured else [])],
                **settings)
    return [node, *_first_to_hear([node] if process.stop_stage == 0 else [])]


def _variables(process: Process, given: dict[str, str]) -> dict[str, str]:
    variables = dict(process.variables)
    if process.part == 'registry' and given['database_url_file']:
        variables['MOE_DATABASE_URL'] = str(Path(given['database_url_file']).expanduser().absolute())
    return variables


def _first_to_hear(nodes: Iterable[Node]) -> list[LaunchDescriptionEntity]:
    """Interrupt what moves the robot at once; launch alone leaves that to the terminal."""
    return [RegisterEventHandler(OnShutdown(on_shutdown=[
        EmitEvent(event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(node)))]))
        for node in nodes]


def _robot_state_publisher(given: dict[str, str]) -> list[LaunchDescriptionEntity]:
    """The transforms of the pan-tilt head, where ROS provides the node; it is not among the wheels of PyPI."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix
    try:
        get_package_prefix('robot_state_publisher')
    except PackageNotFoundError:
        return []
    urdf = (share() / 'config' / 'urdf' / 'pan_tilt.urdf').read_text(encoding='utf-8')
    return [Node(package='robot_state_publisher', executable='robot_state_publisher', namespace=given['namespace'],
                 parameters=[{'robot_description': urdf, 'use_sim_time': given['use_sim_time'] == 'true'}],
                 respawn=True, respawn_delay=RESPAWN_DELAY_S, output='screen')]
