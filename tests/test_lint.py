"""Order in the house: ruff, mypy strict on the cores, who may import whom, package metadata."""

from __future__ import annotations

import ast
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rclpy.task import Future

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob('src/*/setup.py'))
ROS = ('rclpy', 'moe_interfaces')


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split('.')[0]


def test_ruff():
    folders = ('src', 'launch', 'bootstrap', 'benchmarks', 'data', 'docker/rehearse', 'tests')
    done = subprocess.run([sys.executable, '-m', 'ruff', 'check', *folders], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('package', PACKAGES)
def test_cores_are_strictly_typed(package):
    # Jazzy's rclpy has no types, so that what the cores import of ros/ cannot be judged there
    followed = 'normal' if hasattr(Future, '__class_getitem__') else 'silent'
    done = subprocess.run([sys.executable, '-m', 'mypy', package, '--exclude', '/ros/', '--follow-imports', followed,
                           '--cache-dir', str(ROOT / 'build' / '.mypy_cache' / package)],
                          cwd=ROOT / 'src' / package, capture_output=True, text=True, env=None)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('package', PACKAGES)
def test_cores_know_no_ros_and_packages_not_each_other(package):
    wrong = []
    for path in sorted((ROOT / 'src' / package / package).rglob('*.py')):
        found = set(imports(path))
        others = found & (set(PACKAGES) - {package})
        if path.parent.name != 'ros':
            others |= found & set(ROS)
        wrong += [f'{path.relative_to(ROOT)} imports {name}' for name in sorted(others)]
    assert not wrong


@pytest.mark.parametrize('package', PACKAGES)
def test_package_xml_declares_the_interfaces_that_are_imported(package):
    declared = {element.text for element in ElementTree.parse(ROOT / 'src' / package / 'package.xml').getroot()
                if element.tag in ('depend', 'exec_depend')}
    used = {name for path in (ROOT / 'src' / package / package / 'ros').glob('*.py') for name in imports(path)
            if name == 'rclpy' or name.endswith(('_msgs', '_srvs', '_interfaces'))}
    assert used <= declared, f'declare {sorted(used - declared)} in src/{package}/package.xml'


def test_how_nodes_spin_is_the_same_everywhere():
    """Packages may not import each other, so each has this file; it must not drift."""
    files = sorted(ROOT.glob('src/*/moe_*/ros/spinning.py'))
    assert len(files) == 4
    assert len({path.read_text() for path in files}) == 1


def test_how_action_servers_are_met_is_the_same_everywhere():
    files = sorted(ROOT.glob('src/*/**/action_client.py'))
    assert len(files) == 5
    assert len({path.read_text() for path in files}) == 1


@pytest.mark.parametrize(('name', 'packages'), [
    ('diagnostics.py', ('experts', 'router', 'training', 'client')),
    ('quick_endpoints.py', ('experts', 'router', 'hardware'))])
def test_what_packages_share_is_the_same(name, packages):
    """Hardware nodes have other diagnostics, with hardware ids and several checks."""
    files = [ROOT / 'src' / f'moe_{package}' / f'moe_{package}' / 'ros' / name for package in packages]
    assert len({path.read_text() for path in files}) == 1
