"""Which experts and versions the expert node holds, for how long, and what a new champion changes."""

import threading
from concurrent.futures import ThreadPoolExecutor

from expert_graph import ask, greedy, loaded, status, versions
from graph import wait_for

from moe_interfaces.msg import ExpertVersion
from moe_interfaces.srv import LoadExpert, RegisterVersion, SetAlias, UnloadExpert

pytest_plugins = ['expert_fixtures']


def test_the_base_and_the_adapters_on_it_share_a_process(graph, node):
    for name in ('general', 'left'):
        assert not graph.call(LoadExpert, 'experts/load_expert', expert=name).error_code
    found = status(graph, lambda message: {'general', 'left'} <= {one.expert for one in message.experts})
    assert len(found.worker_pids) == 1


def test_the_least_recently_used_adapter_is_evicted(graph, node):
    before = status(graph, lambda _message: True).evictions
    texts = {name: ask(graph, expert=name).result().response.text for name in ('left', 'right', 'left', 'up')}
    assert len(set(texts.values())) == 1
    assert texts['left'] != ask(graph).result().response.text
    found = status(graph, lambda message: 'up' in loaded(message))
    assert loaded(found) == ['general', 'left', 'up']
    assert found.evictions >= before + 1


def test_what_is_pinned_stays_and_what_is_unloaded_goes(graph, node):
    first = graph.call(LoadExpert, 'experts/load_expert', expert='left', pin=True)
    assert (first.error_code, first.status.expert, first.status.pinned) == (0, 'left', True)
    assert graph.call(LoadExpert, 'experts/load_expert', expert='left').load_s == 0.0
    for name in ('right', 'up', 'right'):
        assert ask(graph, expert=name).result().error_code == 0
    assert loaded(status(graph, lambda message: 'right' in loaded(message))) == ['general', 'left', 'right']
    assert graph.call(UnloadExpert, 'experts/unload_expert', expert='left').freed_bytes > 0
    assert 'left' not in loaded(status(graph, lambda message: 'right' in loaded(message)))
    assert graph.call(UnloadExpert, 'experts/unload_expert', expert='nobody').error_code == 1000


def test_a_goal_may_say_how_long_its_expert_stays(graph, node):
    ask(graph, expert='left', keep_alive=0.0).result()
    status(graph, lambda message: 'left' not in loaded(message))


def test_unloading_by_force_ends_what_runs(graph, node):
    goal = ask(graph, expert='left', max_tokens=1500).streaming()
    graph.call(UnloadExpert, 'experts/unload_expert', expert='left', force=True)
    result = goal.result()
    assert (result.error_code, result.finish_reason) == (1001, 'error')
    assert result.response.text
    assert ask(graph, expert='left').result().error_code == 0


def test_a_new_champion_answers_next(graph, node, home):
    ask(graph, expert='left').result()
    version = ExpertVersion(artifact_path=str(home / 'adapter.gguf'), base='tiny', lora_scale=0.5,
                            base_path=str(home / 'base.gguf'))
    graph.call(RegisterVersion, 'registry/register_version', expert='left', version=version, alias='champion')
    wait_for(lambda: ask(graph, expert='left').result().expert_version == 2, what='version 2')
    assert ask(graph, expert='left', sampling_config=greedy()).result().cached is False
    assert ask(graph, expert='left', sampling_config=greedy()).result().cached is True
    graph.call(SetAlias, 'registry/set_alias', expert='left', alias='champion', version=1)
    wait_for(lambda: ask(graph, expert='left').result().expert_version == 1, what='version 1')
    status(graph, lambda message: versions(message, 'left') == [(1, False)])
    assert ask(graph, expert='left', sampling_config=greedy()).result().cached is False


def test_whoever_asks_while_a_champion_moves_leaves_no_old_version_behind(graph, node):
    over = threading.Event()

    def keep_asking():
        while not over.is_set():
            assert ask(graph, expert='left').result().error_code == 0

    with ThreadPoolExecutor(8) as callers:
        asking = [callers.submit(keep_asking) for _ in range(8)]
        try:
            for version in (2, 1) * 4:
                graph.call(SetAlias, 'registry/set_alias', expert='left', alias='champion', version=version)
                status(graph, lambda message, version=version: versions(message, 'left') == [(version, False)])
        finally:
            over.set()
        for one in asking:
            one.result()


def test_a_pinned_expert_stays_pinned_with_a_new_champion(graph, node):
    assert graph.call(LoadExpert, 'experts/load_expert', expert='left', pin=True).status.pinned
    for version in (2, 1):
        graph.call(SetAlias, 'registry/set_alias', expert='left', alias='champion', version=version)
        status(graph, lambda message, version=version: versions(message, 'left') == [(version, True)])
    graph.call(UnloadExpert, 'experts/unload_expert', expert='left')
