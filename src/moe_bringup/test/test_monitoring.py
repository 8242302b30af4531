"""What rviz, rqt and the aggregator are given: frames, topics and names of the suite; markers of real messages."""

import ast
import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import rclpy
import yaml
from rclpy.qos import DurabilityPolicy, QoSProfile
from test_process_table import TOP
from test_supervisor import wait_for
from visualization_msgs.msg import MarkerArray

from moe_interfaces.action import GenerateResponse
from moe_interfaces.msg import ServoState, ServoStates

TOPICS = {'/moe/robot_description', '/moe/image_raw', '/moe/imu/data', '/moe/markers', '/moe/joint_states'}


def test_urdf_is_a_tree_with_the_joints_of_the_servo_node():
    root = ElementTree.parse(TOP / 'config' / 'urdf' / 'pan_tilt.urdf').getroot()
    links = {link.get('name') for link in root.iter('link')}
    joints = {joint.get('name'): joint for joint in root.iter('joint')}
    children = [joint.find('child').get('link') for joint in joints.values()]
    assert links - set(children) == {'base_link'} and len(children) == len(set(children))
    assert {joint.find('parent').get('link') for joint in joints.values()} <= links
    assert {'camera_optical_frame', 'imu_link'} <= links
    for name, limit in (('pan', 90.0), ('tilt', 60.0)):
        assert float(joints[name].find('limit').get('upper')) == pytest.approx(math.radians(limit), abs=1e-3)
        assert float(joints[name].find('limit').get('lower')) == pytest.approx(-math.radians(limit), abs=1e-3)


def test_rviz_shows_topics_of_the_suite():
    displays = yaml.safe_load((TOP / 'config' / 'rviz' / 'moe.rviz').read_text())['Visualization Manager']['Displays']
    shown = {display[key]['Value'] for display in displays for key in ('Topic', 'Description Topic') if key in display}
    assert shown == TOPICS - {'/moe/joint_states'}


def test_rqt_perspective_loads():
    content = json.loads((TOP / 'config' / 'rqt' / 'moe.perspective').read_text())
    manager = content['groups']['pluginmanager']
    running = ast.literal_eval(manager['keys']['running-plugins']['repr'])
    assert {'rqt_robot_monitor/RobotMonitor', 'rqt_image_view/ImageView'} <= set(running)
    assert len(manager['groups']) == len(running)


def test_aggregator_knows_every_group_of_names():
    content = yaml.safe_load((TOP / 'config' / 'diagnostics.yaml').read_text())['/**']['ros__parameters']
    contained = [name for group in content.values() if isinstance(group, dict) for name in group['contains']]
    assert {f'{name}: ' for name in ('router', 'experts', 'registry', 'training', 'gateway', 'servos', 'motion',
                                     'camera', 'imu')} <= set(contained)


def test_markers_say_who_answers_and_that_the_robot_is_stopped():
    process = subprocess.Popen([sys.executable, '-m', 'moe_bringup.ros.marker_node', '--ros-args', '-r', '__ns:=/moe'])
    rclpy.init()
    node = rclpy.create_node('test_markers', namespace='/moe')
    try:
        seen = {}
        node.create_subscription(
            MarkerArray, 'markers', lambda message: seen.update({one.ns: one for one in message.markers}),
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        states = node.create_publisher(ServoStates, 'servo_states', 10)
        feedback = node.create_publisher(GenerateResponse.Impl.FeedbackMessage,
                                         'generate_response/_action/feedback', 10)
        answer = GenerateResponse.Impl.FeedbackMessage()
        answer.feedback.expert, answer.feedback.expert_version, answer.feedback.confidence = 'python', 2, 0.75

        def told():
            states.publish(ServoStates(estop=True, estop_reason='tested', servos=[
                ServoState(joint='pan', online=True, position=math.radians(30.0))]))
            feedback.publish(answer)
            rclpy.spin_once(node, timeout_sec=0.1)
            return bool(seen) and 'python' in seen['expert'].text and 'tested' in seen['estop'].text
        wait_for(told, 60.0)
        assert seen['expert'].text == 'python@2  75 %'
        assert seen['joints'].text == 'pan +30.0°'
        assert seen['estop'].text == 'E-STOP: tested' and seen['estop'].color.r == 1.0
        assert seen['estop'].header.frame_id == 'base_link'
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        process.terminate()
        assert process.wait(20) == 0
