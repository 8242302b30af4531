from setuptools import find_packages, setup

package_name = 'moe_training'

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
    ],
    package_data={'moe_training': ['model_sizes.yaml']},
    zip_safe=False,
    maintainer='MoE for ROS 2 maintainers',
    maintainer_email='maintainers@moe-ros2.org',
    description='Training: datasets, fine-tuning, GGUF export, quantisation and the training node.',
    license='Apache-2.0',
    extras_require={'test': ['pytest']},
    entry_points={
        'console_scripts': [
            'training_node = moe_training.ros.training_node:main',
            'prepare_base = moe_training.prepare_base:main',
        ],
    },
)
