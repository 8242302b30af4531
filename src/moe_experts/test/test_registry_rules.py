"""The alias state machine by hypothesis, and the plan of every listed query."""

import json

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from model_files import write_model
from sqlalchemy import event, text

from moe_experts.registry.entities import Version
from moe_experts.registry.errors import ExpertNotReady, RegistryError, StaleVersion

ALIASES = st.sampled_from(['champion', 'challenger', 'nightly'])
NUMBERS = st.integers(0, 4)


def test_aliases_follow_their_rules(registry, tmp_path):
    count = iter(range(1_000_000))
    model = write_model(tmp_path / 'model.gguf')

    class Aliases(RuleBasedStateMachine):
        """Against a dictionary: what each alias points at, and where champion was before."""

        @initialize()
        def begin(self):
            self.name = f'machine{next(count)}'
            registry.experts.create({'name': self.name, 'domain': 'test'}, 'tester')
            self.versions, self.aliases, self.before = 0, {}, 0

        def moved(self, alias, number):
            if alias == 'champion' and self.aliases.get(alias, number) != number:
                self.before = self.aliases[alias]
            self.aliases[alias] = number

        @rule(alias=st.one_of(st.just(''), ALIASES))
        def register(self, alias):
            self.versions += 1
            assert registry.versions.register(self.name, Version(str(model)), alias, 'tester').number == self.versions
            if alias:
                self.moved(alias, self.versions)

        @rule(alias=ALIASES, number=NUMBERS, expected=st.sampled_from([-1, 0, 1, 2]))
        def set_alias(self, alias, number, expected):
            now = self.aliases.get(alias, 0)
            if expected not in (-1, now):
                with pytest.raises(StaleVersion):
                    registry.versions.set_alias(self.name, alias, number, expected)
            elif number > self.versions or (not number and alias == 'champion'):
                with pytest.raises(RegistryError):
                    registry.versions.set_alias(self.name, alias, number, expected)
            else:
                assert registry.versions.set_alias(self.name, alias, number, expected)[1] == now
                if number:
                    self.moved(alias, number)
                else:
                    self.aliases.pop(alias, None)

        @rule()
        def promote(self):
            if 'challenger' not in self.aliases:
                with pytest.raises(ExpertNotReady):
                    registry.versions.promote(self.name, 'tester')
                return
            assert registry.versions.promote(self.name, 'tester')[2] == self.aliases.get('champion', 0)
            self.moved('champion', self.aliases.pop('challenger'))

        @rule()
        def rollback(self):
            if not self.before:
                with pytest.raises(ExpertNotReady):
                    registry.versions.rollback(self.name, 'tester')
                return
            target = self.before
            assert registry.versions.rollback(self.name, 'tester')[1:] == (target, self.aliases['champion'])
            self.moved('champion', target)

        @invariant()
        def is_what_was_done(self):
            expert = registry.experts.get(name=self.name)
            assert expert.aliases == self.aliases
            assert expert.status == ('ready' if 'champion' in self.aliases else 'creating')

    run_state_machine_as_test(Aliases, settings=settings(
        max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)))


FILL = """
INSERT INTO experts (name, status, domain, category, description, fallback, routable, base_expert, system_prompt,
                     output_schema, sampling, max_tokens, max_seq_len, priority, row_version)
SELECT 'bulk' || n, CASE n % 50 WHEN 0 THEN 'ready' ELSE 'creating' END, 'domain' || n % 200, 'category' || n % 20, '',
       false, true, '', '', '', '{}', 256, 2048, 10, 1 FROM generate_series(1, 20000) n;
INSERT INTO training_jobs (expert_id, status, detail)
SELECT (SELECT min(id) FROM experts WHERE name LIKE 'bulk%') + n % 20000, CASE n % 100 WHEN 0 THEN 'running' ELSE
       'succeeded' END, '{}' FROM generate_series(1, 20000) n;
INSERT INTO outcomes (request_id, session, expert, version, ab_test_id, success, error_code, finish_reason, latency_s,
                      completion_tokens)
SELECT 'o' || n, '', 'bulk' || n % 100, 1, 0, true, 0, 'stop', 0.1, 1 FROM generate_series(1, 50000) n;
INSERT INTO routes (request_id, session, prompt_digest, prompt, choice, confidence, ranked, probabilities,
                    none_probability, abstained, stage, latency_s, router_version, corrected)
SELECT 'r' || n, '', '', '', 'bulk' || n % 50, 1, '{}', '{}', 0, false, 'learned', 0, 1,
       CASE n % 1000 WHEN 0 THEN 'bulk1' ELSE '' END FROM generate_series(1, 50000) n;
INSERT INTO route_samples (expert, intent, text, source)
SELECT 'bulk' || n % 50, '', 'sample ' || n, 'dataset' FROM generate_series(1, 20000) n;
"""
BIG = {'experts', 'training_jobs', 'outcomes', 'routes', 'route_samples', 'events'}


def test_no_listed_query_scans_a_big_table(registry, database):
    with database.engine.begin() as connection:
        connection.execute(text(FILL))
    with database.engine.connect().execution_options(isolation_level='AUTOCOMMIT') as connection:
        connection.execute(text('VACUUM (ANALYZE)'))
    seen = []

    def note(_connection, _cursor, statement, parameters, *_rest):
        if statement.lstrip().startswith('SELECT'):
            seen.append((statement, parameters))
    event.listen(database.reading, 'before_cursor_execute', note)
    try:
        assert registry.experts.page()[1] >= 20000
        for sort in ('-name', 'id', 'domain', '-status', 'updated_at'):
            registry.experts.page(sort=sort)
        assert registry.experts.page(domain='domain3')[1] == 100
        assert registry.experts.page(category='category3', status='creating')[1] == 1000
        assert registry.experts.page(status='ready', sort='-updated_at')[1] >= 400
        expert = registry.experts.get(name='bulk77')
        registry.versions.all_of(expert.id)
        registry.versions.all_of(name='bulk77')
        for number in (1, 0):  # by its number and by the champion's alias; it has neither
            with pytest.raises(ExpertNotReady):
                registry.versions.get('bulk77', number)
        registry.jobs.page('bulk5')
        registry.jobs.page(status='running')
        registry.events.after(10)
        registry.events.after(0, 'bulk77')
        assert registry.routes.page()[1] == 50000
        assert registry.routes.page('bulk7')[1] == 1000
        assert registry.routes.page(corrected_only=True)[1] == 50
        assert registry.routes.page(request_id='r77')[0][0].choice == 'bulk27'
        registry.routes.samples(limit=100)
        registry.routes.samples('bulk3', limit=100)
        registry.notes.page('bulk77')
    finally:
        event.remove(database.reading, 'before_cursor_execute', note)
    wrong = []
    with database.engine.connect() as connection:
        for statement, parameters in seen:
            plan = connection.exec_driver_sql(f'EXPLAIN (FORMAT JSON) {statement}', parameters).scalar()
            wrong += [(statement, node['Relation Name']) for node in nodes(plan[0]['Plan'])
                      if node['Node Type'] == 'Seq Scan' and node['Relation Name'] in BIG]
    assert not wrong, json.dumps(wrong, indent=1)
    assert len(seen) > 20


def nodes(plan):
    """Every node of a plan."""
    yield plan
    for child in plan.get('Plans', ()):
        yield from nodes(child)
