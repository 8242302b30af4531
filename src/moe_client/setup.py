from setuptools import find_packages, setup

package_name = 'moe_client'

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    package_data={package_name: ['dashboard/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
        ('bin', ['bin/moe']),  # colcon puts this folder into the PATH
    ],
    include_package_data=True,
    zip_safe=True,
    maintainer='MoE for ROS 2 maintainers',
    maintainer_email='maintainers@moe-ros2.org',
    description='Client: the Python SDK, the moe command and the HTTP gateway.',
    license='Apache-2.0',
    extras_require={'test': ['pytest']},
    entry_points={
        'console_scripts': [
            'moe = moe_client.cli:main',
            'gateway_node = moe_client.ros.gateway_node:main',
        ],
        'ros2cli.command': [
            'moe = moe_client.ros.command:MoeCommand',
        ],
    },
)
