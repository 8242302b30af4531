"""The steps of set-up. Each has a digest of its inputs; a stamp is written last, so only what changed is redone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from probes import SetupError, check_machine, explain, sourced_ros
from progress import Progress

# The wheels of ROS 2 were built in a container; their cmake files carry that container's paths.
CONTAINER_PYTHON = '/opt/python/cp311-cp311'
DEFAULT_DISTRO = 'kilted'
ENVIRONMENT = 'Python environment'  # the first step
MODELS = ('smollm2-135m-instruct-q8_0.gguf', 'all-minilm-l6-v2-int8.onnx')  # that nothing can be asked without


def package_of(requirement: str) -> str:
    """Name of the package in a line of a requirements file; '' for a comment."""
    found = re.match(r'[\w.-]+', requirement)
    return found.group().lower() if found else ''


def replaced(requirements: str, others: str) -> str:
    """Lines of a requirements file, those of `others` in place of the same packages."""
    instead = {package_of(line): line for line in others.splitlines() if package_of(line)}
    return '\n'.join(instead.get(package_of(line), line) for line in requirements.splitlines()) + '\n'


@dataclass(frozen=True)
class Step:
    """A step: what a person reads, what it depends on, what it does, whether what it made is still there."""

    name: str
    inputs: Callable[[], str]
    action: Callable[[], None]
    made: Callable[[], bool] = lambda: True


class Setup:
    """Brings .venv, build, install and the models of MOE_HOME up to date.

    Args:
        root: the repository.
        device: "cpu" or "cuda".
        distro: distribution of ROS 2 to install where none is sourced; its pins are requirements/ros-DISTRO.txt. All
            but the default have a workspace of their own in build/.
    """

    def __init__(self, root: Path, device: str, distro: str = DEFAULT_DISTRO) -> None:
        self.root = root
        self.device = device
        self.distro = distro
        self.workspace = root if distro == DEFAULT_DISTRO else root / 'build' / distro
        self.venv = self.workspace / '.venv'
        self.home = Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()
        self.log = self.home / 'logs' / 'setup.log'
        self._python = str(self.venv / 'bin' / 'python')
        self._progress = Progress('')

    def run(self, testing: bool) -> None:
        """Do every step whose inputs changed; raises SetupError."""
        todo = self.todo(testing)
        if not todo:
            return
        check_machine(self.root)
        if todo[0].name == ENVIRONMENT and self.venv.exists():
            shutil.rmtree(self.venv)  # half made, or of another Python or ROS: nothing in it can be trusted
            todo = self.todo(testing)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._scratch, ignore_errors=True)  # what an interrupted set-up left
        begin = time.monotonic()
        for number, step in enumerate(todo, 1):
            self._progress = Progress(f'[{number}/{len(todo)}] {step.name}')
            self._scratch.mkdir(parents=True, exist_ok=True)
            digest = self._digest(step)  # before: a file saved meanwhile may not be in what the step makes
            step.action()
            self._stamps.mkdir(parents=True, exist_ok=True)
            path = self._stamps / self._slug(step)
            path.with_suffix('.tmp').write_text(digest)
            path.with_suffix('.tmp').replace(path)
            self._record(step.name, self._progress.done())
        shutil.rmtree(self._scratch, ignore_errors=True)
        print(f'Set-up took {time.monotonic() - begin:.0f} s.', flush=True)

    def todo(self, testing: bool) -> list[Step]:
        """The steps whose inputs changed since they were done."""
        return [step for step in self._steps(testing) if self._stamp(step) != self._digest(step) or not step.made()]

    def _record(self, name: str, seconds: float) -> None:
        """Keep how long each step took when it was last done."""
        path = self.home / 'logs' / 'setup_times.json'
        times = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**times, name: round(seconds, 1)}, indent=2))

    def environment(self) -> dict[str, str]:
        """The environment of the installed workspace; read once from its setup file, then from a cache."""
        cache = self._stamps / 'environment.json'
        if not cache.is_file():
            shell = (f'. {self.workspace}/install/setup.bash; exec {self._python} -c '
                     '"import json, os; print(json.dumps(dict(os.environ)))"')
            done = subprocess.run(['bash', '-c', shell], env=self._build_environment(), capture_output=True, text=True)
            if done.returncode:
                raise explain('Reading install/setup.bash', done.stderr, self.log)
            sourced = json.loads(done.stdout.splitlines()[-1])
            keep = ('PYTHONPATH', 'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'CMAKE_PREFIX_PATH', 'COLCON_PREFIX_PATH')
            cache.write_text(json.dumps({key: sourced[key] for key in keep if key in sourced}))
        environment = dict(self._build_environment(), **json.loads(cache.read_text()))
        environment['MOE_HOME'] = str(self.home)
        environment.setdefault('ROS_LOG_DIR', str(self.home / 'logs' / 'ros'))
        environment.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        return environment

    @property
    def _stamps(self) -> Path:
        return self.venv / '.moe'

    @property
    def _scratch(self) -> Path:
        """Folder of everything temporary, so that an interrupted build leaves nothing outside."""
        return self.workspace / 'build' / '.tmp'

    @staticmethod
    def _slug(step: Step) -> str:
        return step.name.lower().replace(' ', '-')

    def _stamp(self, step: Step) -> str:
        path = self._stamps / self._slug(step)
        return path.read_text() if path.is_file() else ''

    def _digest(self, step: Step) -> str:
        return hashlib.sha256(f'{self.root}\n{sys.version}\n{step.inputs()}'.encode()).hexdigest()

    def _pins(self, *names: str) -> str:
        return ''.join((self.root / 'requirements' / f'{name}.txt').read_text() for name in names)

    def _steps(self, testing: bool) -> list[Step]:
        distro = sourced_ros()
        steps = [
            Step(ENVIRONMENT, lambda: distro, self._make_venv),
            Step('Build tools', lambda: self._pins('build'), lambda: self._pip('-r', self._file('build')))]
        if not distro:
            steps.append(Step('ROS 2', lambda: self._pins(f'ros-{self.distro}'), self._install_ros))
        steps += [
            Step('Model libraries', lambda: distro + self.device + self._pins('ml', 'numpy1'), self._install_ml),
            Step('Model weights', lambda: self._pins('weights'), self._install_weights),
            Step('Test tools', lambda: self._pins('test'), lambda: self._pip('-r', self._file('test'))),
            Step('Interfaces', lambda: distro + self._tree('src/moe_interfaces', contents=True),
                 lambda: self._colcon('moe_interfaces')),
            Step('Packages', self._package_inputs, self._build_packages),
            # the longest step (about ten minutes on two cores) comes when all that may fail early has passed
            Step('llama.cpp', lambda: self.device + self._pins('llama'), self._install_llama),
            Step('Models', lambda: str(self.home) + self._pins('ml', 'llama'), self._prepare_models,
                 lambda: all((self.home / 'models' / name).is_file() for name in MODELS))]
        return [step for step in steps if testing or step.name != 'Test tools']

    def _file(self, name: str) -> str:
        return str(self.root / 'requirements' / f'{name}.txt')

    def _tree(self, folder: str, *, contents: bool) -> str:
        """Names (and contents) of a folder's files, one string."""
        lines = []
        for path in sorted((self.root / folder).rglob('*')):
            if path.is_file() and '__pycache__' not in path.parts and '.egg-info' not in str(path):
                data = hashlib.sha256(path.read_bytes()).hexdigest() if contents else ''
                lines.append(f'{path.relative_to(self.root)} {data}')
        return '\n'.join(lines)

    def _package_inputs(self) -> str:
        """Python is linked, not copied: only metadata and the set of installed files ask for a new build."""
        metadata = [path for pattern in ('setup.py', 'setup.cfg', 'package.xml')
                    for path in sorted(self.root.glob(f'src/*/{pattern}'))]
        return ''.join(path.read_text() for path in metadata) + ''.join(
            self._tree(folder, contents=False) for folder in ('launch', 'config', 'data'))

    def _make_venv(self) -> None:
        line = [sys.executable, '-m', 'venv', str(self.venv)]
        self._run(ENVIRONMENT, [*line, '--system-site-packages'] if sourced_ros() else line)

    def _install_ros(self) -> None:
        self._pip('-r', self._file(f'ros-{self.distro}'))
        self._run('ROS 2', [self._python, '-c', 'import numpy'])
        numpy_include = subprocess.run([self._python, '-c', 'import numpy; print(numpy.get_include())'],
                                       capture_output=True, text=True, check=True).stdout.strip()
        replacements = {
            f'{CONTAINER_PYTHON}/lib/python3.11/site-packages/numpy/_core/include': numpy_include,
            f'{CONTAINER_PYTHON}/include/python3.11': sysconfig.get_paths()['include']}
        for path in (self.venv / 'share').rglob('*.cmake'):
            text = path.read_text(errors='surrogateescape')
            fixed = text
            for old, new in replacements.items():
                fixed = fixed.replace(old, new)
            if fixed != text:
                path.write_text(fixed, errors='surrogateescape')

    def _install_ml(self) -> None:
        if self.device == 'cpu':
            # An index may offer a CUDA build under the plain name; its CPU build has the local version +cpu.
            torch = next(line for line in self._pins('ml').splitlines() if line.startswith('torch=='))
            try:
                self._pip(torch.split()[0] + '+cpu')
            except SetupError:
                self._pip(torch.split()[0])
        self._pip('-r', self._model_requirements())

    def _model_requirements(self) -> str:
        """The file to install; what an installed ROS 2 was built against stays."""
        probe = subprocess.run([sys.executable, '-c', 'import numpy; print(numpy.__version__)'],
                               capture_output=True, text=True)
        if not sourced_ros() or not probe.stdout.startswith('1.'):
            return self._file('ml')
        path = self._scratch / 'ml.txt'
        path.write_text(replaced(self._pins('ml'), self._pins('numpy1')))
        return str(path)

    def _install_weights(self) -> None:
        # pip takes --no-deps on its command line only
        lines = [line for line in self._pins('weights').splitlines() if '==' in line]
        self._pip('--no-deps', *lines)

    def _install_llama(self) -> None:
        environment = self._compiling()
        environment['CMAKE_ARGS'] = '-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF' + (
            ' -DGGML_CUDA=on' if self.device == 'cuda' else '')
        self._pip('--verbose', '-r', self._file('llama'), environment=environment)

    def _pip(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._run(f'pip install {" ".join(arguments)}', [
            self._python, '-m', 'pip', 'install', '--disable-pip-version-check', '--no-input', *arguments], environment)

    def _colcon(self, *packages: str) -> None:
        self._run(f'colcon build {" ".join(packages)}', [
            self._python, '-m', 'colcon', '--log-base', str(self.workspace / 'log'), 'build',
            '--build-base', str(self.workspace / 'build'), '--install-base', str(self.workspace / 'install'),
            '--symlink-install', '--event-handlers', 'console_direct+', '--packages-select', *packages,
            '--cmake-args', '-G', 'Ninja', '-DCMAKE_BUILD_TYPE=Release', '-DBUILD_TESTING=OFF'], self._compiling())
        (self._stamps / 'environment.json').unlink(missing_ok=True)

    def _build_packages(self) -> None:
        self._colcon(*sorted(path.parent.name for path in self.root.glob('src/*/setup.py')))

    def _prepare_models(self) -> None:
        environment = self.environment()
        for package, program in (('moe_training', 'prepare_base'), ('moe_router', 'prepare_encoder')):
            self._run(program, [str(self.workspace / 'install' / package / 'lib' / package / program)], environment)

    def _build_environment(self) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items()
                       if key not in ('PYTHONHOME', '_ROS_WHEELS_BOOTSTRAP_COMPLETE')}
        environment['VIRTUAL_ENV'] = str(self.venv)
        environment['XDG_CACHE_HOME'] = str(self.home / 'cache')  # what libraries keep stays inside, too
        environment['PATH'] = f'{self.venv / "bin"}{os.pathsep}{environment.get("PATH", os.defpath)}'
        if not sourced_ros():
            environment.pop('PYTHONPATH', None)
            environment['AMENT_PREFIX_PATH'] = environment['CMAKE_PREFIX_PATH'] = str(self.venv)
        return environment

    def _compiling(self) -> dict[str, str]:
        """The environment of a compilation on all cores.

        colcon would let ninja start nothing while the load is above their number; it counts the compilers themselves.
        """
        cores = len(os.sched_getaffinity(0))
        return {'CMAKE_BUILD_PARALLEL_LEVEL': str(cores), 'MAKEFLAGS': f'-j{cores}', **self._build_environment()}

    def _run(self, step: str, line: list[str], environment: dict[str, str] | None = None) -> None:
        """Run a program into the log, in a process group of its own that an interrupt takes along."""
        environment = dict(environment or self._build_environment(), TMPDIR=str(self._scratch))
        environment.setdefault('PIP_CACHE_DIR', str(self.home / 'cache' / 'pip'))
        with self.log.open('a+', encoding='utf-8') as log:
            log.write(f'\n=== {" ".join(line)}\n')
            log.flush()
            start = log.tell()
            child = subprocess.Popen(line, cwd=self.root, env=environment,
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                     start_new_session=True)
            try:
                while (code := self._poll(child)) is None:
                    self._progress.tell(self.log)
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                print(flush=True)
                raise
            if code:
                log.seek(start)
                print(flush=True)
                raise explain(step, log.read(), self.log)

    @staticmethod
    def _poll(child: subprocess.Popen[bytes]) -> int | None:
        try:
            return child.wait(0.5)
        except subprocess.TimeoutExpired:
            return None
