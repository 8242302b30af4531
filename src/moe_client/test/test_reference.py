"""docs/cli.md is the command's own help, and every command of docs/from-the-guide.md can be given."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

from moe_client.cli import app, main
from moe_client.cli.reference import reference

DOCS = Path(__file__).resolve().parents[3] / 'docs'
# they go on, or become another program
NOT_RUN = ('moe up', 'moe up --profile cpu experts', 'moe up --profile memory experts', 'moe logs -f',
           'moe training-logs 456 -f', 'moe registry psql')
COMMANDS = [line.replace('\\', '').split(' | ', 1)[0].strip() for line in re.findall(
    r'\| `(moe [^`]+)` \|$', (DOCS / 'from-the-guide.md').read_text().partition('## Settings')[0], re.MULTILINE)]


def test_the_page_is_the_commands_help():
    assert (DOCS / 'cli.md').read_text() == reference(), 'python -m moe_client.cli.reference > docs/cli.md'


def test_every_verb_and_option_explains_itself():
    def walk(command, path):
        assert command.help, path
        for name, below in getattr(command, 'commands', {}).items():
            walk(below, f'{path} {name}')
    walk(typer.main.get_command(app), 'moe')


def test_the_guide_is_mapped():
    assert len(COMMANDS) > 30


@pytest.mark.parametrize('line', COMMANDS)
def test_each_command_of_the_guide_runs(line, gateway, home, tmp_path, monkeypatch, capfd):
    """Over HTTP; what the small suite lacks is said in one sentence, and wrong usage would be exit code 2."""
    (tmp_path / 'dataset.jsonl').write_text('{"prompt": "a", "completion": "b"}\n')
    monkeypatch.chdir(tmp_path)
    for name, value in {'MOE_URL': gateway.url, 'MOE_HOME': str(home)}.items():
        monkeypatch.setenv(name, value)
    if line in NOT_RUN:
        command = typer.main.get_command(app)
        assert command.make_context('moe', shlex.split(line)[1:]).command is command
        return
    monkeypatch.setattr(sys, 'argv', shlex.split(line))
    code = main()
    out, err = capfd.readouterr()
    assert code in (0, 1), err
    assert 'Traceback' not in out + err
    if code and not line.startswith(('moe status', 'moe check')):
        assert err.startswith('moe: '), out + err
        assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize('line', ['moe list-experts', 'moe info python', 'moe router stats', 'moe training-status',
                                  'moe history', 'moe route "list files"'])
def test_json_is_json(line, gateway, monkeypatch, capfd):
    monkeypatch.setenv('MOE_URL', gateway.url)
    monkeypatch.setattr(sys, 'argv', [*shlex.split(line), '--json'])
    assert main() == 0
    assert json.loads(capfd.readouterr().out) is not None
