"""The table names what is really installed."""

import os

import pytest

from moe_bringup.process_table import command, executable_path, process_table, share


@pytest.mark.parametrize('simulate', [True, False])
def test_every_process_of_the_table_can_be_started(simulate):
    for process in process_table(simulate):
        assert os.access(executable_path(process), os.X_OK), process.name
        if process.node:
            assert (share() / 'config' / f'{process.name}.yaml').is_file(), process.name


def test_simulators_belong_to_simulation_alone():
    simulated = {process.name for process in process_table(True)}
    real = {process.name for process in process_table(False)}
    assert simulated - real == {'sim_servos'}
    assert real < simulated


def test_what_moves_stops_first_and_the_registry_last():
    stages = {process.name: process.stop_stage for process in process_table(True)}
    assert stages['motion'] == stages['servos'] == min(stages.values())
    assert stages['registry'] == stages['sim_servos'] == max(stages.values())


def test_command_carries_namespace_and_parameters():
    servos = next(process for process in process_table(True) if process.name == 'servos')
    line = command(servos)
    assert '__ns:=/moe' in line
    assert f'port_name:={servos.simulated_device or servos.parameters["port_name"]}' in line
