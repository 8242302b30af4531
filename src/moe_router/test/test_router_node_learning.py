"""The node learns: fits, new experts, candidates and their trials."""

import json
import os
from dataclasses import replace
from pathlib import Path

from asking import QUESTIONS, ask, ready, stats
from graph import second_router, wait_for

from moe_interfaces.action import RetrainRouter
from moe_interfaces.msg import Expert, RouteSample
from moe_interfaces.srv import (
    AddRouteSamples,
    CreateExpert,
    GetRouterStats,
    GetRouterVersion,
    ListExperts,
    ListRouteSamples,
    ListVersions,
    RegisterVersion,
    RoutePrompt,
    StartAbTest,
)
from moe_router.classifier import Head
from moe_router.ros.retraining import Material


def test_twenty_examples_make_a_new_expert_routable(moe):
    created = moe.call(CreateExpert, 'registry/create_expert', expert=Expert(name='coffee', domain='coffee'))
    assert created.error_code == 0
    (version, *_older) = moe.call(ListVersions, 'registry/list_versions', expert='linux').versions
    registered = moe.call(RegisterVersion, 'registry/register_version', expert='coffee', version=version,
                          alias='champion')
    assert registered.error_code == 0, registered.error_msg
    drinks = ('espresso', 'cappuccino', 'latte', 'filter coffee', 'ristretto')
    frames = ('how do I brew a {}', 'what grind for {}', 'how hot is the water for {}', 'how long does {} take')
    texts = [frame.format(drink) for drink in drinks for frame in frames]
    moe.call(AddRouteSamples, 'registry/add_route_samples', samples=[
        RouteSample(expert='coffee', text=text, source='dataset') for text in texts])
    training = moe.ask(RetrainRouter, 'retrain_router')
    result = training.result(180.0)
    assert result.error_code == 0 and result.activated, result.error_msg or result.report
    assert training.feedback[0].phase == 'samples'
    report = json.loads(result.report)
    assert report['domains']['coffee'] > 0.5 and os.path.isfile(report['confusion_png'])
    assert moe.call(GetRouterVersion, 'registry/get_router_version').version.number == result.version.number > 0
    assert ready(moe, 'what temperature suits an espresso macchiato').choice == 'coffee'
    assert ready(moe).choice == 'python'
    assert stats(moe)[0].router_version == result.version.number


def test_samples_that_came_before_their_expert_are_learned_when_it_comes(moe):
    frames = ('when do I water the {}', 'how do I prune a {}', 'does a {} want shade', 'what soil for a {}')
    texts = [frame.format(plant) for frame in frames for plant in ('rose', 'fern', 'cactus', 'lavender', 'lemon tree')]
    before = moe.call(ListRouteSamples, 'registry/list_route_samples', limit=1).total
    moe.call(AddRouteSamples, 'registry/add_route_samples', samples=[
        RouteSample(expert='garden', text=text, source='dataset') for text in texts])
    learned = moe.ask(RetrainRouter, 'retrain_router', force=True).result(180.0)
    assert moe.call(ListRouteSamples, 'registry/list_route_samples', limit=1).total == before + len(texts)
    assert learned.activated and 'garden' not in json.loads(learned.report)['domains']
    moe.call(CreateExpert, 'registry/create_expert', expert=Expert(name='garden', domain='garden'))
    wait_for(lambda: 'garden' in stats(moe)[1]['fit']['domains'], 120.0, 'a fit with the garden')


def test_a_candidates_samples_teach_where_its_base_is_meant(moe):
    created = moe.call(CreateExpert, 'registry/create_expert', expert=Expert(
        name='robotics_b', domain='robotics', base_expert='robotics'))
    assert created.error_code == 0, created.error_msg
    frames = ('how do I oil the {}', 'which grease for {}', 'when does the {} wear out', 'what does the {} weigh')
    moe.call(AddRouteSamples, 'registry/add_route_samples', samples=[
        RouteSample(expert='robotics_b', text=frame.format(part), source='dataset') for frame in frames
        for part in ('harmonic drive', 'planetary gearbox', 'worm gear', 'ball screw', 'linear guide')])
    result = moe.ask(RetrainRouter, 'retrain_router', force=True).result(180.0)
    assert result.activated, result.error_msg or result.report
    assert 'robotics_b' not in json.loads(result.report)['domains']
    assert ready(moe, 'how often should I oil the ball screw').choice == 'robotics'


def test_a_trial_gives_each_session_its_side_and_both_the_same_notes(moe, setting):
    created = moe.call(CreateExpert, 'registry/create_expert', expert=Expert(
        name='linux_b', domain='linux', base_expert='linux'))
    assert created.error_code == 0, created.error_msg
    (version, *_older) = moe.call(ListVersions, 'registry/list_versions', expert='linux').versions
    moe.call(RegisterVersion, 'registry/register_version', expert='linux_b', version=version, alias='champion')
    started = moe.call(StartAbTest, 'registry/start_ab_test', control='linux', treatment='linux_b', share=0.5)
    assert started.error_code == 0, started.error_msg

    def sides():
        return [moe.call(RoutePrompt, 'route_prompt', prompt=QUESTIONS['linux'], session=f's{number}').decision.choice
                for number in range(24)]
    wait_for(lambda: 'linux_b' in sides(), what='a session with the candidate')
    found = sides()
    assert set(found) == {'linux', 'linux_b'}
    assert sides() == found
    for side in ('linux', 'linux_b'):  # what each says itself is compared: a near note is read, not said word for word
        result = ask(moe, QUESTIONS['linux'], session=f's{found.index(side)}').result(60.0)
        assert (result.expert, result.error_code) == (side, 0), result.error_msg
        assert [note.expert for note in result.sources] == ['linux']
        assert result.timings.tokens_per_second > 0.0
    setting({'confidence_threshold': 0.5}, confidence_threshold=0.999999)
    for side in ('linux', 'linux_b'):  # a follow-up that alone would be nobody's stays with the conversation's expert
        result = ask(moe, 'and how much of the disk do the logs take', session=f's{found.index(side)}').result(60.0)
        assert (result.expert, result.route.stage) == (side, 'session')


def test_a_refused_fit_is_not_made_again_after_a_restart_but_by_request(moe, suite, environment, tmp_path):
    served = Path(environment['MOE_HOME'])
    (tmp_path / 'models').symlink_to((served / 'models').resolve())
    (tmp_path / 'router').mkdir()
    replace(Head.load(served / 'router' / 'head.npz'), digest='of others').save(tmp_path / 'router' / 'head.npz')
    active = moe.call(GetRouterVersion, 'registry/get_router_version').version.number
    (tmp_path / 'router' / 'version').write_text(str(active))
    roles = {row.name: row.base_expert or row.name
             for row in moe.call(ListExperts, 'registry/list_experts', limit=1000).experts}
    samples = moe.call(ListRouteSamples, 'registry/list_route_samples', limit=10_000)
    assert len(samples.samples) == samples.total
    (tmp_path / 'router' / 'refused').write_text(Material([
        (roles.get(row.expert, row.expert), row.intent, row.text) for row in samples.samples]).digest)
    with second_router(suite, {**environment, 'MOE_HOME': str(tmp_path)}, '["experts"]') as router:
        began = len(router.log.read_text())
        wait_for(lambda: moe.call(RoutePrompt, 'both/route_prompt', prompt=QUESTIONS['linux']).decision.choice
                 == 'linux', 60.0, 'a decision')
        assert moe.call(GetRouterStats, 'both/stats').router_version == active
        assert 'are not fitted again' in router.log.read_text()[began:]
        assert moe.ask(RetrainRouter, 'both/retrain_router', force=True).result(180.0).activated
        assert router.log.read_text()[began:].count('Fitted on') == 1
    assert (tmp_path / 'router' / 'refused').read_text() == ''
