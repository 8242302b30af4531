"""The table names what is really installed."""

import os
from pathlib import Path

import pytest

from moe_bringup.instruments import instruments
from moe_bringup.process_table import command, executable_path, process_table, share
from moe_bringup.supervisor import GRACE_S

TOP = Path(__file__).parents[3]


@pytest.mark.parametrize('simulate', [True, False])
def test_every_process_of_the_table_can_be_started(simulate):
    for process in process_table(simulate):
        assert os.access(executable_path(process), os.X_OK), process.name
        if process.node:
            assert (share() / 'config' / f'{process.name}.yaml').is_file(), process.name


def test_who_is_asked_stops_first_and_the_registry_last():
    stages = {process.name: process.stop_stage for process in process_table(True)}
    assert stages['router'] < stages['experts'] < stages['registry'] == max(stages.values())


def test_who_is_profiled_has_time_to_write_the_report():
    table = process_table(True, instruments=instruments('memory:router', 'experts:5678'))
    report = {process.name: process.report_s for process in table}
    assert report.pop('router') > 4 * GRACE_S
    assert set(report.values()) == {0.0}


def test_command_carries_namespace_and_parameters():
    registry = next(process for process in process_table(True) if process.name == 'registry')
    line = command(registry)
    assert '__ns:=/moe' in line
    assert f'catalogue:={registry.parameters["catalogue"]}' in line
