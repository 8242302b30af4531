"""docs/cli.md: every verb with its help, made from the command itself: python -m moe_client.cli.reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from moe_client.cli import app

HEAD = '''# The command line

Made by `python -m moe_client.cli.reference > docs/cli.md`; a test holds it to the command. `ros2 moe ...` is the same.

On a terminal verbs print tables, in a pipe plain whole rows separated by tabs, with `--json` JSON. Errors are one
sentence on standard error with the next step; `--debug` adds the traceback. Exit codes: 0 done; 1 an error, or the
answer is no (`status` with a process down, `check` with something wrong, `validate-dataset` with bad rows); 2 wrong
usage; 130 interrupted. `moe --install-completion` teaches the shell to complete verbs and options.
'''


def reference() -> str:
    """The whole page."""
    command = typer.main.get_command(app)
    return '\n'.join([HEAD, *(block for name, verb in command.commands.items()  # type: ignore[attr-defined]
                              for block in _verb(f'moe {name}', verb))]).rstrip() + '\n'


def _verb(path: str, verb: Any) -> Iterator[str]:
    help_text = (verb.help or '').strip()
    if hasattr(verb, 'commands'):
        yield f'## {path}\n\n{help_text}\n'
        for name, below in verb.commands.items():
            yield from _verb(f'{path} {name}', below)
        return
    arguments = [_argument(row) for row in verb.params if row.param_type_name == 'argument']
    yield f'## {" ".join([path, *arguments])}\n\n{help_text}\n'
    lines = [_line(row) for row in verb.params if row.name not in ('help',)]
    if lines:
        yield '\n'.join(['| | | default |', '|---|---|---|', *lines]) + '\n'


def _argument(row: Any) -> str:
    name = (row.metavar or row.name).upper().strip('[].')
    dots = '...' if row.nargs == -1 and not (row.metavar or '').endswith('...') else ''
    return f'{name}{dots}' if row.required else f'[{name}{dots}]'


def _line(row: Any) -> str:
    shown = _argument(row) if row.param_type_name == 'argument' else ', '.join([*row.opts, *row.secondary_opts])
    text = (getattr(row, 'help', '') or '').replace('|', '\\|')
    default = row.default
    plain = isinstance(default, (int, float, str)) and not isinstance(default, bool) and default != ''
    return f'| `{shown}` | {text} | {f"`{default}`" if plain else ""} |'


if __name__ == '__main__':
    print(reference(), end='')
