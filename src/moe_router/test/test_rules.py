"""Rules and samples in YAML."""

import pytest

from moe_router.rules import Rules

GOOD = r'''
routes:
  - expert: linux
    keywords: [disk, "c++"]
    samples: [free space, {text: kill it, intent: process}]
  - expert: motion
    priority: 5
    exact: [Centre the head]
    patterns: ['^look (left|right)\b']
'''


@pytest.fixture
def write(tmp_path):
    def file(text):
        path = tmp_path / 'routes.yaml'
        path.write_text(text)
        return path
    return file


@pytest.mark.parametrize(('prompt', 'expert'), [
    ('centre  the HEAD.', 'motion'), ('centre the head now', None), ('look left at the disk', 'motion'),
    ('Is the Disk full?', 'linux'), ('diskette', None), ('I like c++ a lot', 'linux'), ('', None)])
def test_the_first_rule_by_priority_that_matches_decides(write, prompt, expert):
    rule = Rules.load(write(GOOD)).match(prompt, {'linux', 'motion'})
    assert (rule.expert if rule else None) == expert


def test_rules_of_experts_that_are_away_are_passed_over(write):
    assert Rules.load(write(GOOD)).match('look left at the disk', {'linux'}).expert == 'linux'


def test_samples_stand_beside_the_rules(write):
    assert Rules.load(write(GOOD)).samples == (('linux', '', 'free space'), ('linux', 'process', 'kill it'))


@pytest.mark.parametrize(('text', 'what'), [
    ('routes: [', 'no YAML'), ('routes: 3', 'list'), ('- 1', 'list'), ('routes: [{keywords: [a]}]', 'route 1'),
    ('routes: [{expert: a, keyword: [b]}]', 'route 1'), ('routes: [{expert: a, patterns: ["("]}]', r'pattern "\("'),
    ('routes: [{expert: a, samples: [3]}]', 'sample'), ('routes: [{expert: a, keywords: [""]}]', 'empty'),
    ('routes: [{expert: a, priority: high, keywords: [b]}]', 'wrong')])
def test_what_is_wrong_is_named_with_its_place(write, text, what):
    with pytest.raises(ValueError, match=what):
        Rules.load(write(text))


def test_an_empty_file_has_no_rules(write):
    assert Rules.load(write('')).match('anything', {'a'}) is None
