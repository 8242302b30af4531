from setuptools import find_packages, setup

package_name = 'moe_hardware'

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
    ],
    include_package_data=True,
    zip_safe=True,
    maintainer='MoE for ROS 2 maintainers',
    maintainer_email='maintainers@moe-ros2.org',
    description='Hardware: camera, IMU, Dynamixel and motion nodes with byte-level simulators.',
    license='Apache-2.0',
    extras_require={'test': ['pytest']},
    entry_points={
        'console_scripts': [
            'camera_node = moe_hardware.ros.camera_node:main',
            'imu_node = moe_hardware.ros.imu_node:main',
            'servo_node = moe_hardware.ros.servo_node:main',
            'motion_node = moe_hardware.ros.motion_node:main',
            'sim_servos = moe_hardware.simulation.sim_servos:main',
            'sim_imu = moe_hardware.simulation.sim_imu:main',
            'check_devices = moe_hardware.check_devices:main',
            'scan_servos = moe_hardware.servo_tool:scan',
            'set_servo_id = moe_hardware.servo_tool:set_id',
        ],
    },
)
