"""What a terminal draws and a pipe does not, and the picture of a benchmark."""

import pytest
from rich.console import Console

from moe_client.cli import plots

LOG = '''load
Epoch 1, Step 1: Loss=7.428 Rate=0.001 Norm=2.1
Epoch 1, Step 2: Loss=5.500 Validation=6.000 Rate=0.001 Norm=2.1
Epoch 1, Step 2: Loss=5.250 Rate=0.001 Norm=2.1
Epoch 1, Step 3: Loss=4.000 Rate=0.001 Norm=2.1
'''
REPORT = {'expert': 'python', 'version': 3, 'loads': [
    {'streams': count, 'tokens_per_s': 40.0 * count ** 0.5, 'first_token_s': [0.1 * count, 0.2 * count, 0.3 * count]}
    for count in (1, 2, 4, 8)]}


@pytest.fixture(params=[True, False], ids=['terminal', 'pipe'])
def terminal(request, monkeypatch):
    monkeypatch.setattr(plots, 'console', Console(force_terminal=request.param, width=60, no_color=True))
    return request.param


def test_the_loss_of_a_job_is_drawn(tmp_path, terminal, capsys):
    log = tmp_path / 'training_7.log'
    log.write_text(LOG)
    found = plots.losses(log)
    assert found == {'loss': ([1, 2, 3], [7.428, 5.25, 4.0]), 'validation loss': ([2], [6.0])}
    plots.curves('loss by step', found, 'step')
    out = capsys.readouterr().out
    assert ('loss by step' in out, '7.4' in out, 'validation loss' in out) == (terminal,) * 3
    assert max((len(line) for line in out.splitlines()), default=0) <= 60


def test_a_job_elsewhere_has_no_curve(tmp_path, terminal, capsys):
    plots.curves('loss by step', plots.losses(tmp_path / 'absent.log'), 'step')
    plots.histogram('rows', [0, 0], [0.0, 1.0, 2.0])
    assert not capsys.readouterr().out


def test_lengths_are_drawn(terminal, capsys):
    plots.histogram('rows by tokens', [3, 9, 1], [0.0, 10.0, 20.0, 30.0])
    out = capsys.readouterr().out
    assert ('rows by tokens' in out, '█' in out) == (terminal, terminal)


def test_the_speed_of_an_expert_is_drawn(tmp_path, terminal, capsys):
    plots.curves('tokens/s of all together', plots.speeds(REPORT['loads']), 'callers at once')
    assert ('callers at once' in capsys.readouterr().out) == terminal
    plots.write_speeds(REPORT, tmp_path / 'speed.png')
    assert (tmp_path / 'speed.png').read_bytes().startswith(b'\x89PNG')
    assert [path.name for path in tmp_path.iterdir()] == ['speed.png']
