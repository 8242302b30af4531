"""The documents hold what they say: links resolve, commands and their options exist, keys of settings are known."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer import BadParameter
from typer.core import TyperGroup
from typer.main import get_command

from moe_bringup.configuration import divided
from moe_bringup.settings import SECTIONS, SETTINGS
from moe_client.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/*.md')])
_LINK = re.compile(r'\]\(([^)\s]+)\)')
_SPAN = re.compile(r'`([^`\n]+)`')
_BLOCK = re.compile(r'^```[^\n]*\n(.*?)^```', re.M | re.S)
UsageError = BadParameter.__mro__[1]  # typer brings a click of its own
NOT_VERBS = ('exec', 'test')  # of ./moe itself


def names(path):
    return str(path.relative_to(ROOT))


def commands(text):
    """Every `moe ...` of a page, without comments and continuations."""
    blocks = [line for block in _BLOCK.findall(text) for line in block.replace('\\\n', ' ').splitlines()]
    spans = _SPAN.findall(_BLOCK.sub('', text))
    for line in (*blocks, *spans):
        for part in re.split(r' && |; (?=\./moe|moe )', re.sub(r'^\$ ', '', line)):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue
            if len(words) > 1 and words[0] in ('./moe', 'moe') and re.fullmatch(r'[a-z-]+', words[1]):
                yield words[1:]


def problem(words):
    """What is wrong with a command line; '' = nothing."""
    command = get_command(app)
    words = [word for word in words if word not in ('|', '...')]
    if words[0] in ('--device', '--distro'):  # of the set-up
        words = words[2:]
    if not words or words[0] in NOT_VERBS:
        return ''
    context = command.make_context('moe', [], resilient_parsing=True)
    if words[0].startswith('-'):
        options = {option for parameter in command.params for option in parameter.opts}
        while words and words[0] in options:
            words = words[1:]
        if not words or words[0].isupper():  # a placeholder
            return ''
    while isinstance(command, TyperGroup):
        if not words:
            return ''
        found = command.get_command(context, words[0])
        if found is None:
            return f'there is no verb {words[0]}'
        command, words = found, words[1:]
    if command.context_settings.get('ignore_unknown_options'):
        return ''
    try:
        command.make_parser(command.context_class(command)).parse_args(list(words))
    except UsageError as error:
        told = error.format_message()
        return '' if 'requires an argument' in told else told  # prose names an option without its value
    return ''


@pytest.mark.parametrize('page', PAGES, ids=names)
def test_links_resolve(page):
    text = page.read_text(encoding='utf-8')
    links = [link.partition('#')[0] for link in _LINK.findall(_BLOCK.sub('', text)) if '://' not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize('page', PAGES, ids=names)
def test_commands_and_their_options_exist(page):
    wrong = {' '.join(words): fault for words in commands(page.read_text(encoding='utf-8'))
             if (fault := problem(words))}
    assert not wrong


@pytest.mark.parametrize(('line', 'fault'), [
    ('moe fly', 'no verb fly'), ('moe train a b --wings 2', '--wings'), ('moe registry fly', 'no verb fly')])
def test_a_command_that_does_not_exist_is_found(line, fault):
    assert [fault in problem(words) for words in commands(f'`{line}`')] == [True]


@pytest.mark.parametrize('page', PAGES, ids=names)
def test_settings_that_are_shown_are_accepted(page):
    text = page.read_text(encoding='utf-8')
    for shown in (*_SPAN.findall(_BLOCK.sub('', text)), *_BLOCK.findall(text)):
        if re.match(rf'({"|".join(SECTIONS)}):[ \n]', shown):
            content = yaml.safe_load(re.sub(r'\b(FILE|ФАЙЛ)\b', 'file', shown))
            divided(content, names(page))


def test_the_example_shows_every_key_with_its_default():
    content = yaml.safe_load((ROOT / 'config' / 'moe.example.yaml').read_text())
    shown = {f'{section}.{key}': value for section, keys in content.items() for key, value in keys.items()}
    assert shown == {setting.key: setting.default for setting in SETTINGS}
    divided(content, 'moe.example.yaml')


def test_the_reference_names_every_key():
    text = (ROOT / 'docs' / 'configuration.md').read_text()
    assert not [setting.key for setting in SETTINGS if f'`{setting.key}`' not in text]


@pytest.mark.parametrize('page', ['troubleshooting.md', 'troubleshooting.ru.md'])
def test_both_languages_have_every_symptom_with_a_command(page):
    english = (ROOT / 'docs' / 'troubleshooting.md').read_text()
    sections = re.split(r'^### ', (ROOT / 'docs' / page).read_text(), flags=re.M)[1:]
    assert len(sections) == len(re.findall(r'^### ', english, flags=re.M))
    assert not [section.splitlines()[0] for section in sections if not re.search(r'moe |ROS_', section)]
