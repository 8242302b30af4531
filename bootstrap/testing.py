"""`./moe test`: colcon test of every package, then the tests of the whole, then a summary."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def own_domain() -> Iterator[int]:
    """Reserve a ROS_DOMAIN_ID, and the one 50 above for a second suite, that no other test run of this machine uses."""
    for number in range(1, 50):
        with open(f'/tmp/moe-test-domain-{number}.lock', 'w') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield number
            return
    raise SystemExit('moe: all ROS_DOMAIN_IDs are in use by other test runs; wait for one of them.')


def run_tests(root: Path, workspace: Path, environment: dict[str, str], arguments: list[str]) -> int:
    """Run the tests of one package or of all; returns 0 only if something ran and nothing failed."""
    package = arguments[0] if arguments and not arguments[0].startswith('-') else ''
    rest = arguments[1:] if package else arguments
    known = sorted(path.parent.name for path in root.glob('src/*/setup.py'))
    if package and package not in (*known, 'tests'):
        print(f'moe: no package {package}; there are {", ".join(known)} and tests (the whole).', file=sys.stderr)
        return 2
    python, build = str(workspace / '.venv' / 'bin' / 'python'), workspace / 'build'
    reports = {name: build / name / 'pytest.xml' for name in known}
    reports['tests'] = build / 'tests.xml'
    for report in reports.values():
        report.unlink(missing_ok=True)
    with own_domain() as domain:
        environment = dict(environment, ROS_DOMAIN_ID=str(domain), ROS_PYTHON_CHECK_FIELDS='1',
                           HYPOTHESIS_STORAGE_DIRECTORY=str(build / '.hypothesis'))
        packages = [package] if package in known else [] if package else known
        if packages:
            subprocess.run([python, '-m', 'colcon', '--log-base', str(workspace / 'log'), 'test',
                            '--build-base', str(build), '--install-base', str(workspace / 'install'),
                            '--executor', 'sequential', '--event-handlers', 'console_direct+',
                            '--packages-select', *packages, '--pytest-args', '-ra', *rest],
                           cwd=root, env=environment)
        if package in ('', 'tests'):
            subprocess.run([python, '-m', 'pytest', '-ra', f'--junit-xml={reports["tests"]}', 'tests', *rest],
                           cwd=root, env=environment)
    wanted = [*packages, *(['tests'] if package in ('', 'tests') else [])]
    return summary({name: reports[name] for name in wanted})


def summary(reports: dict[str, Path]) -> int:
    """Print counts by package and in all; a missing report is a failure."""
    total = {'passed': 0, 'failed': 0, 'skipped': 0}
    print()
    for name, path in reports.items():
        counts = read_report(path)
        if counts is None:
            print(f'{name:16} no result: its tests did not run to the end')
            total['failed'] += 1
            continue
        print(f'{name:16} ' + ', '.join(f'{value} {key}' for key, value in counts.items()))
        for key, value in counts.items():
            total[key] += value
    print(f'{total["passed"]} passed, {total["failed"]} failed, {total["skipped"]} skipped', flush=True)
    return 0 if total['passed'] and not total['failed'] else 1


def read_report(path: Path) -> dict[str, int] | None:
    """Counts of a JUnit file; None = there is none, or it is broken."""
    try:
        suites = list(ElementTree.parse(path).getroot().iter('testsuite'))
    except (OSError, ElementTree.ParseError):
        return None
    number = {key: sum(int(suite.get(key, 0)) for suite in suites)
              for key in ('tests', 'failures', 'errors', 'skipped')}
    failed = number['failures'] + number['errors']
    return {'passed': number['tests'] - failed - number['skipped'], 'failed': failed, 'skipped': number['skipped']}


