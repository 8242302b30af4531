"""One file for the whole suite: divided among the nodes, mistakes answered with the nearest right key."""

import pytest

from moe_bringup.configuration import ConfigurationError, divided, read_configuration
from moe_bringup.process_table import command, prefix, process_table
from moe_bringup.settings import SETTINGS


def written(tmp_path, text):
    path = tmp_path / 'config.yaml'
    path.write_text(text)
    return path


def test_keys_become_parameters_of_their_nodes(tmp_path):
    configuration = read_configuration(written(tmp_path, '''
api: {port: 8001, host: 0.0.0.0}
training: {batch_size: 2, gradient_accumulation: 4, learning_rate: 1e-5, use_fp16: true, use_lora: false}
experts: {max_seq_len: 1024, cache_size: 2}
inference: {timeout_ms: 20}
database: {timeout: 30}
system: {log_level: DEBUG, log_format: json}
'''))
    assert configuration.parameters == {
        'gateway': {'api.port': 8001, 'api.host': '0.0.0.0'},
        'experts': {'inference.context_tokens': 1024, 'experts.cache_size': 2, 'inference.timeout_ms': 20},
        'registry': {'database.timeout': 30.0}}
    assert configuration.training == {'batch_size': 2, 'gradient_accumulation': 4, 'learning_rate': 1e-5,
                                      'precision': 'fp16', 'method': 'full'}
    assert (configuration.log_level, configuration.log_format) == ('debug', 'json')
    lines = {process.name: command(process) for process in process_table(True, configuration)}
    assert 'inference.context_tokens:=1024' in lines['experts']
    assert 'database.timeout:=30.0' in lines['registry']
    assert 'api.host:=0.0.0.0' in lines['gateway']


def test_an_empty_file_changes_nothing(tmp_path):
    assert process_table(True, read_configuration(written(tmp_path, '# nothing\n'))) == process_table(True)


@pytest.mark.parametrize(('text', 'sentence'), [
    ('training: {batchsize: 2}', 'unknown key training.batchsize; did you mean training.batch_size?'),
    ('inference: {max_seq_len: 9}', 'did you mean training.max_seq_len?'),
    ('trainig: {batch_size: 2}', "unknown section 'trainig'; did you mean training?"),
    ('api: {port: "8001"}', "api.port is '8001'; it must be a whole number, by default 8000"),
    ('api: {port: true}', 'api.port is True; it must be a whole number'),
    ('system: {log_level: loud}', 'must be one of debug, info, warn, error, fatal'),
    ('api: 8000', 'api must hold keys'),
    ('- api', 'must hold sections'),
    ('api: {port: [}', 'is no YAML in line 1'),
    ('experts: {replicas: 0}', 'experts.replicas is 0'),
    ('system: {processes: {router: {nise: 3}}}', "did you mean nice?"),
    ('system: {processes: {router: {cpu_affinity: [-1]}}}', 'cpu_affinity is a list of cores'),
])
def test_mistakes_are_one_sentence(tmp_path, text, sentence):
    with pytest.raises(ConfigurationError, match=r'^.*$') as error:
        read_configuration(written(tmp_path, text))
    assert sentence in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigurationError, match='No such file'):
        read_configuration(tmp_path / 'absent.yaml')
    (tmp_path / 'latin').write_bytes(b'\xff\xfe: 1')
    with pytest.raises(ConfigurationError, match='no UTF-8'):
        read_configuration(tmp_path / 'latin')


def test_priority_cores_and_threads_go_to_the_process():
    configuration = divided({'system': {'processes': {'experts': {'nice': 3, 'cpu_affinity': [0, 1], 'threads': 2}}}},
                            'here')
    experts = next(process for process in process_table(True, configuration) if process.name == 'experts')
    assert prefix(experts) == ['nice', '-n', '3', 'taskset', '-c', '0,1']
    assert experts.variables['OMP_NUM_THREADS'] == '2'


def test_a_process_that_is_not_there_is_refused():
    configuration = divided({'system': {'processes': {'rooter': {'nice': 3}}}}, 'here')
    with pytest.raises(ConfigurationError, match="no process 'rooter'; there are registry, experts, router"):
        process_table(True, configuration)


def test_replicas_have_names_of_their_own_and_the_router_knows_them():
    configuration = divided({'experts': {'replicas': 3, 'cache_size': 2}}, 'here')
    table = {process.name: process for process in process_table(True, configuration)}
    assert table['router'].parameters['expert_nodes'] == ['experts', 'experts_2', 'experts_3']
    assert '__node:=experts_3' in command(table['experts_3'])
    assert 'experts.cache_size:=2' in command(table['experts_3'])
    assert 'expert_nodes:=["experts", "experts_2", "experts_3"]' in command(table['router'])


def test_keys_are_unique():
    assert len({setting.key for setting in SETTINGS}) == len(SETTINGS)
