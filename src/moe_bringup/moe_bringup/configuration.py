"""One configuration file for the suite: read, checked, and divided among the nodes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from moe_bringup.settings import SECTIONS, SETTINGS, TRAIN, Setting

_BY_KEY = {setting.key: setting for setting in SETTINGS}
_WISHES: dict[str, type] = {'nice': int, 'cpu_affinity': list, 'threads': int}


class ConfigurationError(ValueError):
    """One sentence: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Configuration:
    """What a file asks for; without one, nothing.

    Attributes:
        parameters: by node, the parameters that the file sets.
        training: options of `moe train` that it sets.
        processes: by process, the fields of its row in the table: nice, cpu_affinity, threads.
        replicas: expert nodes.
    """

    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    replicas: int = 1
    log_level: str = ''
    log_format: str = 'text'


def read_configuration(path: Path) -> Configuration:
    """Read a file. Raises ConfigurationError, with line or nearest key."""
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigurationError(f'{path} cannot be read: {error.strerror}; name another file with --config.') from None
    except UnicodeDecodeError:
        raise ConfigurationError(f'{path} is no UTF-8 text; save it as UTF-8.') from None
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        where = f' in line {mark.line + 1}' if mark else ''
        raise ConfigurationError(f'{path} is no YAML{where}: {getattr(error, "problem", error)}.') from None
    return divided(content or {}, str(path))


def divided(content: Any, source: str) -> Configuration:
    """Divide checked content among the nodes. Raises ConfigurationError."""
    given = _flat(content, source)
    parameters: dict[str, dict[str, Any]] = {}
    training: dict[str, Any] = {}
    for key, value in given.items():
        setting = _BY_KEY[key]
        if setting.owner == TRAIN:
            training.update([_train_option(setting, value)])
        elif setting.owner:
            parameters.setdefault(setting.owner, {})[setting.target] = value
    return Configuration(
        parameters=parameters, training=training, processes=_wishes(given.get('system.processes', {}), source),
        replicas=_replicas(given.get('experts.replicas', 1), source),
        log_level=given.get('system.log_level', ''), log_format=given.get('system.log_format', 'text'))


def _flat(content: Any, source: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigurationError(f'{source} must hold sections ({", ".join(SECTIONS)}), each with keys.')
    given: dict[str, Any] = {}
    for section, keys in content.items():
        if section not in SECTIONS:
            raise ConfigurationError(f'{source} has the unknown section {section!r}{_nearest(str(section), SECTIONS)}')
        if not isinstance(keys, dict | None):
            raise ConfigurationError(f'{source}: {section} must hold keys, for example '
                                     f'{next(key for key in _BY_KEY if key.startswith(section))}.')
        for name, value in (keys or {}).items():
            key = f'{section}.{name}'
            if key not in _BY_KEY:
                raise ConfigurationError(f'{source} has the unknown key {key}{_nearest_key(section, str(name))}')
            given[key] = _checked(_BY_KEY[key], value, source)
    return given


def _checked(setting: Setting, value: Any, source: str) -> Any:
    wanted = type(setting.default)
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            value = float(value)
        except ValueError:
            pass
    if type(value) is not wanted:
        kind = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'text', dict: 'keys'}[wanted]
        raise ConfigurationError(f'{source}: {setting.key} is {value!r}; it must be {kind}, by default '
                                 f'{setting.default!r}.')
    if setting.choices:
        if value.lower().replace('warning', 'warn') not in setting.choices:
            raise ConfigurationError(f'{source}: {setting.key} is {value!r}; it must be one of '
                                     f'{", ".join(setting.choices)}.')
        value = value.lower().replace('warning', 'warn')
    return value


def _nearest_key(section: str, name: str) -> str:
    own = [key.partition('.')[2] for key in _BY_KEY if key.startswith(f'{section}.')]
    elsewhere = [key for key in _BY_KEY if key.partition('.')[2] == name]
    if elsewhere:  # right word, wrong section
        return f'; did you mean {elsewhere[0]}?'
    near = difflib.get_close_matches(name, own, 1, 0.5)
    if near:
        return f'; did you mean {section}.{near[0]}?'
    return _nearest(f'{section}.{name}', tuple(_BY_KEY))


def _nearest(word: str, known: tuple[str, ...]) -> str:
    return f'; did you mean {difflib.get_close_matches(word, known, 1, 0.0)[0]}?'


def _train_option(setting: Setting, value: Any) -> tuple[str, Any]:
    """The guide's switches are choices of `moe train`."""
    if setting.key == 'training.use_lora':
        value = 'lora' if value else 'full'
    elif setting.key == 'training.use_fp16':
        value = 'fp16' if value else 'auto'
    return setting.target, value


def _replicas(value: int, source: str) -> int:
    if not 1 <= value <= 64:
        raise ConfigurationError(f'{source}: experts.replicas is {value}; it must be 1..64.')
    return value


def _wishes(content: dict[str, Any], source: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for process, wishes in content.items():
        where = f'{source}: system.processes.{process}'
        if not isinstance(wishes, dict):
            raise ConfigurationError(f'{where} must hold some of {", ".join(_WISHES)}.')
        for name, value in wishes.items():
            if name not in _WISHES:
                raise ConfigurationError(f'{where} has the unknown key {name!r}{_nearest(str(name), tuple(_WISHES))}')
            if type(value) is not _WISHES[name] or (
                    isinstance(value, list) and not all(type(core) is int and core >= 0 for core in value)):
                raise ConfigurationError(f'{where}.{name} is {value!r}; nice and threads are whole numbers, '
                                         'cpu_affinity is a list of cores such as [0, 1].')
        found[process] = {name: tuple(value) if isinstance(value, list) else value for name, value in wishes.items()}
    return found
