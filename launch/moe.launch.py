"""The whole suite: `ros2 launch moe_bringup moe.launch.py`.

Reads the same process table and parameter files as `moe up`.
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from moe_bringup.process_table import executable_path, moe_home, process_table, share


def _processes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    (moe_home() / 'run').mkdir(parents=True, exist_ok=True)
    respawn = {'respawn': True, 'respawn_delay': 1.0, 'output': 'screen'}
    actions: list[LaunchDescriptionEntity] = []
    for process in process_table(value('simulate').lower() in ('true', '1')):
        if not process.node:
            actions.append(ExecuteProcess(
                cmd=[str(executable_path(process)), *process.arguments], name=process.name, **respawn))
            continue
        files = [str(share() / 'config' / f'{process.name}.yaml')]
        if value('params_file'):
            files.append(value('params_file'))
        actions.append(Node(
            package=process.package, executable=process.executable, name=process.name,
            namespace=value('namespace'), parameters=[*files, *([process.parameters] if process.parameters else [])],
            ros_arguments=['--log-level', value('log_level')], additional_env=process.environment, **respawn))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the processes of the table."""
    return LaunchDescription([
        DeclareLaunchArgument('namespace', default_value='moe', description='namespace of every node'),
        DeclareLaunchArgument('simulate', default_value='true', choices=['true', 'false'],
                              description='simulated servos, IMU and camera instead of devices'),
        DeclareLaunchArgument('params_file', default_value='',
                              description='YAML file of parameters that override those of config/'),
        DeclareLaunchArgument('log_level', default_value='info', description='of every node'),
        OpaqueFunction(function=_processes),
    ])
