from setuptools import find_packages, setup

package_name = 'moe_router'

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
    description='Router: encoder, calibrated classifier, policy and the router node.',
    license='Apache-2.0',
    extras_require={'test': ['pytest']},
    entry_points={
        'console_scripts': [
            'router_node = moe_router.ros.router_node:main',
            'prepare_encoder = moe_router.prepare_encoder:main',
            'replay_routes = moe_router.replay:main',
        ],
    },
)
