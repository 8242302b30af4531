from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

package_name = 'moe_bringup'
# launch/, config/ and data/ stand at the top of the repository: they belong to the suite, not to one package.
top = Path('../..')


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """List (install folder, files) for every folder below `folder`."""
    found: dict[str, list[str]] = {}
    for path in sorted(glob(f'{top}/{folder}/**/*', recursive=True)):
        if Path(path).is_file() and '__pycache__' not in path:
            target = f'share/{package_name}/{Path(path).parent.relative_to(top)}'
            found.setdefault(target, []).append(path)
    return list(found.items())


setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
        *tree('launch'),
        *tree('config'),
        *tree('data'),
    ],
    include_package_data=True,
    zip_safe=True,
    maintainer='MoE for ROS 2 maintainers',
    maintainer_email='maintainers@moe-ros2.org',
    description='Bring-up: launch files, parameter files, the process table and its supervisor.',
    license='Apache-2.0',
    extras_require={'test': ['pytest']},
    entry_points={
        'console_scripts': [
            'supervisor = moe_bringup.supervisor:main',
            'marker_node = moe_bringup.ros.marker_node:main',
        ],
    },
)
