"""The command line as a user meets it: real processes, no suite running."""

import os
import subprocess
import sys

import pytest


def moe(*arguments, home):
    environment = dict(os.environ, MOE_HOME=str(home), NO_COLOR='1')
    return subprocess.run([sys.executable, '-m', 'moe_client.cli', *arguments], env=environment,
                          capture_output=True, text=True, timeout=60)


def test_version(tmp_path):
    done = moe('--version', home=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith('moe 0.')


@pytest.mark.parametrize('arguments', [('frobnicate',), ('ask',), ('up', '--log-level')])
def test_wrong_usage_is_one_sentence_and_exit_code_two(arguments, tmp_path):
    done = moe(*arguments, home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('moe: ')
    assert 'Traceback' not in done.stderr


def test_a_shell_completes_verbs_and_options(tmp_path):
    command = tmp_path / 'moe'
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m moe_client "$@"\n')
    command.chmod(0o755)
    script = """
        eval "$(./moe --show-completion)"
        complete -p moe
        COMP_WORDS=(./moe list-e) COMP_CWORD=1; _moe_completion ./moe; echo "${COMPREPLY[@]}"
        COMP_WORDS=(./moe ask --gro) COMP_CWORD=2; _moe_completion ./moe; echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(['bash', '-c', script], cwd=tmp_path, env={**os.environ, 'MOE_HOME': str(tmp_path)},
                          capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        'complete -o default -F _moe_completion moe', 'list-experts', '--ground'], done.stderr
    assert 'Usage: moe ask' in moe('ask', '--help', home=tmp_path).stdout


def test_status_and_down_without_a_suite(tmp_path):
    assert moe('status', home=tmp_path).returncode == 1
    done = moe('down', home=tmp_path)
    assert done.returncode == 0
    assert f'Nothing runs in {tmp_path}' in done.stdout.replace('\n', '')


def test_logs_without_logs(tmp_path):
    done = moe('logs', home=tmp_path)
    assert done.returncode == 1
    assert 'No log in' in done.stderr


def test_asking_without_a_suite_says_how_to_start_it(tmp_path):
    done = moe('ask', 'hello', home=tmp_path)
    assert done.returncode == 1
    assert 'moe up' in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_stale_state_file_is_no_running_suite(tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'supervisor.json').write_text('{"pid": 4194303, "processes": []}')
    assert moe('status', home=tmp_path).returncode == 1
