"""Set-up: one sentence for what the machine lacks, nothing left after an interrupt, one at a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import alive, wait_for

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'bootstrap'))

import probes  # noqa: E402
import steps  # noqa: E402
from lock import exclusive  # noqa: E402
from steps import Setup, replaced  # noqa: E402


@pytest.fixture
def clone(tmp_path):
    """A checkout without any set-up, and a MOE_HOME that is not there yet."""
    root = tmp_path / 'clone'
    root.mkdir()
    for name in ('requirements', 'src', 'launch', 'config', 'data'):
        (root / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / 'moe', root / 'moe')
    shutil.copytree(ROOT / 'bootstrap', root / 'bootstrap', ignore=shutil.ignore_patterns('__pycache__'))
    return root


def environment(root, **changes):
    keep = {key: value for key, value in os.environ.items()
            if not key.startswith(('AMENT', 'COLCON', 'ROS_')) and key not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    return {**keep, 'MOE_HOME': str(root.parent / 'home'), **changes}


def sourced(folder):
    """What a ROS 2's setup.bash says of it, as far as set-up looks."""
    (folder / 'ros' / 'share' / 'rclpy').mkdir(parents=True)
    return {'ROS_DISTRO': 'kilted', 'AMENT_PREFIX_PATH': str(folder / 'ros')}


def plain_path(folder, *programs):
    """A PATH that holds these programs and no others."""
    folder.mkdir()
    for program in programs:
        (folder / program).symlink_to(shutil.which(program))
    return str(folder)


def test_a_missing_compiler_is_one_sentence_with_the_remedy(clone, tmp_path):
    path = plain_path(tmp_path / 'bin', 'sh', 'dirname', 'readlink')
    done = subprocess.run([str(clone / 'moe'), '--help'], capture_output=True, text=True, timeout=60,
                          env=environment(clone, PATH=path, MOE_PYTHON=sys._base_executable))
    assert done.returncode == 1
    assert done.stderr.strip() == ('moe: No C++ compiler found; install one, for example with `sudo apt install g++`.')
    assert not (clone / '.venv').exists()


def test_no_python_is_one_sentence_with_the_remedy(clone, tmp_path):
    path = plain_path(tmp_path / 'bin', 'sh', 'dirname', 'readlink')
    done = subprocess.run([str(clone / 'moe')], capture_output=True, text=True, timeout=60,
                          env=environment(clone, PATH=path))
    assert done.returncode == 1
    assert 'no Python 3.11 or newer found' in done.stderr and 'MOE_PYTHON' in done.stderr


def test_too_little_disk_and_missing_headers_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(probes, 'NEEDED_BYTES', 10**18)
    with pytest.raises(probes.SetupError, match=r'are free in .* set-up needs'):
        probes.check_machine(tmp_path)
    monkeypatch.setattr(probes.sysconfig, 'get_paths', lambda: {'include': str(tmp_path)})
    with pytest.raises(probes.SetupError, match=r'Python\.h is missing; install the Python headers'):
        probes.check_machine(tmp_path)


@pytest.mark.parametrize(('output', 'sentence'), [
    ('OSError: [Errno 28] No space left on device', 'The disk is full'),
    ('NewConnectionError: Failed to establish a new connection: [Errno -3]', 'No network'),
    ('x\nERROR: No matching distribution found for torch==0.0\n', 'No matching distribution found for torch==0.0'),
    ('', 'no output')])
def test_a_failed_step_is_explained_in_one_sentence(output, sentence):
    text = str(probes.explain('pip install', output, Path('/log')))
    assert sentence in text and '\n' not in text


def test_an_interrupted_set_up_leaves_nothing_and_can_go_on(clone):
    process = subprocess.Popen([str(clone / 'moe'), '--help'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env=environment(clone, MOE_PYTHON=sys._base_executable))
    try:
        children = wait_for(lambda: psutil.Process(process.pid).children(recursive=True), timeout=60.0)
        wait_for(lambda: (clone / '.venv' / '.moe' / 'python-environment').is_file(), timeout=120.0)
        wait_for(lambda: psutil.Process(process.pid).children(recursive=True), timeout=60.0)
        children += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert 'set-up interrupted; the next start goes on where it was' in output
    assert 'Traceback' not in output
    wait_for(lambda: not alive(child.pid for child in children))
    with exclusive(clone / 'log' / 'setup.lock'):  # free again
        pass
    setup = Setup(clone, 'cpu')
    todo = [step.name for step in setup.todo(testing=False)]
    assert todo[0] == 'Build tools', 'what was done before the interrupt is not done again'


def test_another_python_or_ros_starts_from_an_empty_environment(clone, monkeypatch):
    setup = Setup(clone, 'cpu')
    made = [step for step in setup.todo(testing=False) if step.name != steps.ENVIRONMENT]
    stale = setup.venv / '.moe' / 'build-tools'
    stale.parent.mkdir(parents=True)
    for step in made:
        (stale.parent / setup._slug(step)).write_text(setup._digest(step))
    assert [step.name for step in setup.todo(testing=False)] == [steps.ENVIRONMENT]
    begun = []
    monkeypatch.setattr(Setup, '_run', lambda _self, step, *_line: begun.append((step, stale.exists())) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        setup.run(testing=False)
    assert begun == [(steps.ENVIRONMENT, False)]


def test_a_file_saved_while_its_step_runs_asks_for_the_step_again(clone, monkeypatch):
    source = clone / 'made_of'
    source.write_text('first')
    monkeypatch.setenv('MOE_HOME', str(clone.parent / 'home'))
    setup = Setup(clone, 'cpu')
    made = []

    def make():
        made.append(source.read_text())
        if len(made) == 1:
            source.write_text('second')
    monkeypatch.setattr(steps, 'check_machine', lambda _root: None)
    monkeypatch.setattr(Setup, '_steps', lambda _self, _testing: [steps.Step('Some step', source.read_text, make)])
    for _ in range(3):
        setup.run(testing=False)
    assert made == ['first', 'second'] and setup.todo(testing=False) == []


def test_models_that_went_missing_are_made_again(clone, monkeypatch):
    monkeypatch.setenv('MOE_HOME', str(clone.parent / 'home'))
    setup = Setup(clone, 'cpu')
    step, = (one for one in setup.todo(testing=False) if one.name == 'Models')
    setup._stamps.mkdir(parents=True)
    (setup._stamps / setup._slug(step)).write_text(setup._digest(step))
    assert 'Models' in [one.name for one in setup.todo(testing=False)]
    (setup.home / 'models').mkdir(parents=True)
    for name in steps.MODELS:
        (setup.home / 'models' / name).touch()
    assert 'Models' not in [one.name for one in setup.todo(testing=False)]


def test_an_installed_ros_keeps_the_numpy_it_was_built_against():
    lines = replaced('# c\ntorch==2.13.0\nnumpy==2.4.6\nopencv-python-headless==5.0\n', '# why\nnumpy<2\n').splitlines()
    assert lines == ['# c', 'torch==2.13.0', 'numpy<2', 'opencv-python-headless==5.0']
    texts = [(ROOT / 'requirements' / f'{name}.txt').read_text() for name in ('ml', 'numpy1')]
    assert 'numpy<2' in replaced(*texts) and 'numpy==' not in replaced(*texts)


def test_a_distribution_that_is_not_there_is_refused_with_those_that_are(clone):
    cases = ({}, '--distro takes jazzy or kilted'), (sourced(clone.parent), 'ROS 2 kilted is sourced')
    for changes, sentence in cases:
        done = subprocess.run([str(clone / 'moe'), 'test', '--distro', 'iron'], capture_output=True, text=True,
                              timeout=60, env=environment(clone, MOE_PYTHON=sys._base_executable, **changes))
        assert done.returncode == 2
        assert sentence in done.stderr


def test_every_distribution_has_its_own_workspace(clone):
    kilted, jazzy = Setup(clone, 'cpu'), Setup(clone, 'cpu', 'jazzy')
    assert kilted.venv == clone / '.venv'
    assert jazzy.venv == clone / 'build' / 'jazzy' / '.venv'
    assert [one.name for one in jazzy.todo(testing=True)] == [one.name for one in kilted.todo(testing=True)]
    names = [{steps.package_of(line) for line in (ROOT / 'requirements' / f'ros-{distro}.txt').read_text().splitlines()}
             for distro in ('kilted', 'jazzy')]
    assert {name for name in names[0] if name.endswith('-msgs')} <= names[1]


def test_two_set_ups_wait_for_each_other(tmp_path):
    path = tmp_path / 'lock'
    program = (f'import sys; sys.path.insert(0, {str(ROOT / "bootstrap")!r})\n'
               'from pathlib import Path\nfrom lock import exclusive\n'
               f'with exclusive(Path({str(path)!r})):\n    print("mine", flush=True); sys.stdin.read()\n')
    with exclusive(path):
        second = subprocess.Popen([sys.executable, '-c', program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True)
        assert f'pid {os.getpid()}' in second.stdout.readline()
        time.sleep(0.2)
        assert second.poll() is None
    assert second.stdout.readline() == 'mine\n'
    second.communicate()
    assert second.returncode == 0
