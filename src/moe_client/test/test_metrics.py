"""A scrape holds what is promised, and every query of the Grafana dashboard finds its series in it."""

import json
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

DASHBOARD = Path(__file__).resolve().parents[3] / 'config' / 'grafana' / 'moe.json'
FUNCTIONS = {'sum', 'by', 'rate', 'histogram_quantile', 'le'}
# series that exist only with servos or a training, by their family
OTHER_NODES = {'moe_servo_temperature_celsius', 'moe_servo_voltage_volts', 'moe_bus_errors', 'moe_training_loss',
               'moe_training_step', 'moe_training_tokens_per_second'}


@pytest.fixture(scope='module')
def families(gateway):
    httpx.post(f'{gateway.url}/v1/inference/generate', timeout=60.0, json={
        'prompt': 'How do I read a JSON file in Python?'}).raise_for_status()
    text = httpx.get(gateway.metrics).text
    return {family.name: family for family in text_string_to_metric_families(text)}


def expressions():
    board = json.loads(DASHBOARD.read_text())
    return [target['expr'] for panel in board['panels'] for target in panel['targets']]


@pytest.mark.parametrize('expression', expressions())
def test_each_panel_has_its_series_and_labels(families, expression):
    names = [name for name in re.findall(r'\bmoe_\w+', expression)]
    assert names
    for name in names:
        family = next((family for family in families.values() if name.removesuffix('_total') == family.name
                       or name in {sample.name for sample in family.samples}), None)
        assert family, name
        if family.name in OTHER_NODES and not family.samples:
            continue
        assert any(sample.name == name for sample in family.samples) or family.name == 'moe_router_selections', name
        labels = {label for sample in family.samples for label in sample.labels}
        wanted = {label.strip() for group in re.findall(r'by \(([^)]*)\)', expression) for label in group.split(',')}
        assert wanted <= labels or not family.samples, expression


def test_the_stages_of_a_generation_are_measured(families):
    stages = {sample.labels['stage'] for sample in families['moe_stage_latency_seconds'].samples}
    assert stages == {'route', 'queue', 'first_token', 'per_token', 'total'}


def test_names_of_latencies_say_so(families):
    assert any('latency' in name for name in families)


def test_nodes_are_up_or_not(families):
    up = {sample.labels['node']: sample.value for sample in families['moe_node_up'].samples}
    assert up['router'] == 1.0
    assert up['servos'] == 0.0
