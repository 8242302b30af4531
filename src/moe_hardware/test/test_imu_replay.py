"""Recordings in place of an IMU: CSV files of both shapes, bags, their pace, their end, and broken ones."""

import math
import sqlite3
import time

import pytest
from rclpy.serialization import serialize_message
from ros_graph import Graph, node, wait_for_status
from sensor_msgs.msg import Imu

from moe_hardware.errors import HardwareFault
from moe_hardware.imu.replay import ReplayDriver, load_csv
from moe_hardware.ros import imu_bag


def write_csv(path, count=50, period=0.005):
    rows = ['time,gyro_x,gyro_y,gyro_z,accel_x,accel_y,accel_z,temperature']
    rows += [f'{100 + number * period},0.0,0.0,{number / 1000},0.1,0.2,9.8,31.5' for number in range(count)]
    path.write_text('\n'.join(rows) + '\n')
    return path


def test_a_csv_file_plays_at_its_own_pace(tmp_path):
    driver = ReplayDriver(str(write_csv(tmp_path / 'a.csv')), load_csv, loop=True)
    driver.open()
    begin = time.monotonic()
    readings = [driver.read() for _ in range(50)]
    assert time.monotonic() - begin >= 49 * 0.005 - 0.001
    assert [velocity[2] for velocity, _ in readings] == pytest.approx([number / 1000 for number in range(50)])
    assert readings[0][1] == (0.1, 0.2, 9.8) and driver.read_temperature() == 31.5
    assert driver.read()[0][2] == 0.0  # from its beginning again


def test_a_recording_that_does_not_loop_ends_with_a_sentence(tmp_path):
    driver = ReplayDriver(str(write_csv(tmp_path / 'a.csv', 3)), load_csv, loop=False)
    driver.open()
    for _ in range(3):
        driver.read()
    for _ in range(2):
        with pytest.raises(HardwareFault, match='has ended after 3 readings; set loop'):
            driver.read()


def test_the_csv_of_ros2_topic_echo(tmp_path):
    row = ['12', '500000000', 'imu_link', *'0001', *'000000000', '0.1', '0.2', '0.3', *'000000000',
           '1.0', '2.0', '9.0', *'000000000']
    (tmp_path / 'echo.csv').write_text(','.join(row) + '\n')
    reading = load_csv(tmp_path / 'echo.csv')[0]
    assert reading.stamp_ns == 12_500_000_000 and math.isnan(reading.temperature)
    assert reading.angular_velocity == (0.1, 0.2, 0.3) and reading.linear_acceleration == (1.0, 2.0, 9.0)


@pytest.mark.parametrize(('text', 'cause'), [
    ('', 'it is empty'), ('a,b\n1,2\n', 'first row must name time'),
    ('time,gx,gy,gz,ax,ay,az\n', 'has no reading'),
    ('time,gx,gy,gz,ax,ay,az\n0,0,0,0,0,0,nan\n', 'row 2 has a value that is no number'),
    ('time,gx,gy,gz,ax,ay,az\n0,0,0,0,0\n', 'row 2'), ('time,gx,gy,gz,ax,ay,az\n0,0,0,x,0,0,0\n', 'row 2')])
def test_broken_files_are_named_with_the_row(tmp_path, text, cause):
    (tmp_path / 'b.csv').write_text(text)
    with pytest.raises(HardwareFault, match=cause):
        ReplayDriver(str(tmp_path / 'b.csv'), load_csv, loop=True).open()


def write_bag(folder):
    folder.mkdir()
    connection = sqlite3.connect(folder / 'bag_0.db3')
    connection.execute('CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT, type TEXT)')
    connection.execute('CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)')
    connection.execute("INSERT INTO topics VALUES (1, '/chatter', 'std_msgs/msg/String'), "
                       "(2, '/imu/data_raw', 'sensor_msgs/msg/Imu')")
    for number in range(10):
        message = Imu()
        message.header.stamp.nanosec = number * 10_000_000
        message.linear_acceleration.z, message.angular_velocity.x = 9.8, number / 10
        connection.execute('INSERT INTO messages (topic_id, timestamp, data) VALUES (2, ?, ?)',
                           (number, serialize_message(message)))
    connection.commit()
    connection.close()
    return folder


def test_a_bag_is_read_without_an_installed_ros(tmp_path):
    readings = imu_bag.load(write_bag(tmp_path / 'bag'))
    assert [one.angular_velocity[0] for one in readings] == pytest.approx([number / 10 for number in range(10)])
    assert readings[1].stamp_ns == 10_000_000
    (tmp_path / 'no.db3').write_text('no bag')
    with pytest.raises(ValueError, match='not a database'):
        imu_bag.load(tmp_path / 'no.db3')


@pytest.mark.parametrize('chosen', ['complementary', 'fusion'])
def test_the_node_plays_a_bag_with_either_filter(tmp_path, chosen):
    bag = write_bag(tmp_path / 'bag')
    played = node(tmp_path / 'node.log', 'imu_node', driver='replay', port_name=bag, filter=chosen)
    with Graph() as graph, played as one:
        message = graph.listen(Imu, 'imu/data').next()[0]
        assert message.linear_acceleration.z == 9.8
        wait_for_status(graph.diagnostics(), 'imu', lambda status: status.level == b'\x00')
        assert one.end() == 0


def test_an_unknown_driver_is_refused_in_words(tmp_path):
    with node(tmp_path / 'node.log', 'imu_node', driver='mpu9250') as process:
        assert process.popen.wait(20) == 1
        assert 'driver is one of bno055, mpu6050, replay' in process.output
