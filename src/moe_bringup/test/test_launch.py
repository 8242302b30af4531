"""The launch files with the real launch and launch_ros, where they can be imported (they are not on PyPI)."""

import asyncio
import json
from pathlib import Path

import pytest

from moe_bringup.process_table import PARTS, process_table
from moe_bringup.ros import launching_imports

pytestmark = pytest.mark.skipif(not launching_imports(), reason='launch and launch_ros are not installed')
FOLDER = Path(__file__).parents[3] / 'launch'


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('MOE_HOME', str(tmp_path))
    return tmp_path


def load(part):
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    return PythonLaunchDescriptionSource(str(FOLDER / f'{part}.launch.py')).try_get_launch_description_without_context()


def started(part, **given):
    """Command lines that a launch file would execute, by label."""
    from launch.actions import ExecuteProcess
    from launch_ros.actions import Node

    from launch import LaunchContext
    context = LaunchContext()
    context._set_asyncio_loop(asyncio.new_event_loop())
    context.launch_configurations.update(given)
    found = {}

    def walk(entities):
        for entity in entities:
            if isinstance(entity, Node):
                entity._perform_substitutions(context)
                context.extend_locals({'ros_specific_arguments': {
                    'name': f'__node:={entity.node_name}', 'ns': '', 'params': ''}})
            if isinstance(entity, ExecuteProcess):
                entity.prepare(context)
                details = entity.process_description
                found[details.final_name.rpartition('-')[0]] = (details.final_cmd, details.final_env)
            else:
                walk(entity.visit(context) or [])
    walk([load(part)])
    return found


def test_every_part_starts_its_processes_and_the_whole_starts_all():
    table = process_table(True)
    for part in PARTS:
        assert list(started(part)) == [process.name for process in table if process.part == part], part
    assert list(started('moe')) == [process.name for process in table]


def test_arguments_are_described_and_the_same_everywhere():
    declared = [[(argument.name, argument.description) for argument in load(part).get_launch_arguments()]
                for part in (*PARTS, 'moe')]
    assert all(one == declared[0] for one in declared)
    assert {'namespace', 'params_file', 'log_level', 'use_sim_time', 'simulate', 'database_url_file',
            'experts_replicas', 'profile', 'debug', 'config'} <= {name for name, _ in declared[0]}
    assert all(text for _, text in declared[0])


def test_without_simulation_there_are_no_simulators():
    assert not {name for name in started('hardware', simulate='false') if name.startswith('sim_')}


def test_arguments_reach_the_processes(home):
    url = home / 'url'
    found = started('moe', experts_replicas='2', profile='cpu:router', debug='experts_2:5678',
                    database_url_file=str(url), log_level='debug')
    assert 'moe_bringup.profiling' in found['router'][0]
    assert '127.0.0.1:5678' in found['experts_2'][0]
    assert found['registry'][1]['MOE_DATABASE_URL'] == str(url)
    assert all('debug' in line for name, (line, _) in found.items() if not name.startswith('sim_'))


def test_a_wrong_wish_ends_the_launch_with_its_sentence(home):
    with pytest.raises(ValueError, match="no process 'rooter'"):
        started('router', profile='cpu:rooter')
    (home / 'config.yaml').write_text('training: {batchsize: 2}')
    with pytest.raises(ValueError, match=r'did you mean training\.batch_size'):
        started('training', config=str(home / 'config.yaml'))


def test_the_hardware_starts_moves_nothing_and_leaves_the_torque_off(home):
    """The real thing: launch runs the drivers and simulators until joint states come, then shuts down."""
    import rclpy
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from sensor_msgs.msg import JointState

    from launch import LaunchDescription, LaunchService
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(FOLDER / 'hardware.launch.py')))]))
    seen = []

    async def watch():
        context = rclpy.Context()
        rclpy.init(context=context)
        node = rclpy.create_node('watch', context=context)
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        node.create_subscription(JointState, '/moe/joint_states', seen.append, 10)
        try:
            for _ in range(1200):
                executor.spin_once(timeout_sec=0)
                if seen:
                    break
                await asyncio.sleep(0.05)
        finally:
            executor.shutdown()
            node.destroy_node()
            context.try_shutdown()
            await service.shutdown()

    async def run():
        await asyncio.gather(service.run_async(), watch())

    asyncio.run(run())
    assert seen and seen[0].name == ['pan', 'tilt']
    rows = [json.loads(line) for line in (home / 'run' / 'servos.journal.jsonl').read_text().splitlines()]
    torque = {row['id']: row['value'] for row in rows if row['register'] == 'torque_enable'}
    assert set(torque.values()) <= {0}
