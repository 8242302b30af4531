"""Experts: list-experts, info, create-expert, update, disable, enable, resize, delete-expert, promote, rollback, ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moe_client.cli.connection import connect
from moe_client.cli.output import Json, as_json, done, json_text, local_time, rows
from moe_client.errors import InvalidRequest
from moe_client.types import AbTest

Expert = Annotated[str, typer.Argument(metavar='EXPERT', help='Id or name.')]
Reason = Annotated[str, typer.Option(help='Why, for the history.')]
Size = Annotated[str, typer.Option(help='tiny, small, medium or large.')]


def list_experts(
    domain: Annotated[str, typer.Option(help='Only of this domain.')] = '',
    category: Annotated[str, typer.Option(help='Only of this category.')] = '',
    status: Annotated[str, typer.Option(help='creating, ready, training, disabled or failed.')] = '',
    sort: Annotated[str, typer.Option(help='By name, id, domain, status or updated_at; "-" in front reverses.')] = 'id',
    offset: Annotated[int, typer.Option(min=0, help='Leave out so many.')] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help='At most so many.')] = 1000,
    json: Json = False,
) -> None:
    """List the experts."""
    with connect() as client:
        experts = client.experts.list(domain, status, sort, category=category, offset=offset, limit=limit)
    if json:
        as_json(experts)
        return
    rows(('id', 'name', 'domain', 'status', 'version', 'description'),
         [(row.id, row.name, row.domain, row.status, row.champion_version or '-', row.description)
          for row in experts])


def info(expert: Expert, json: Json = False) -> None:
    """Show an expert and its versions, one value a line."""
    with connect() as client:
        row = client.experts.get(expert)
    if json:
        as_json(row)
        return
    for key in ('id', 'name', 'domain', 'category', 'description', 'status', 'fallback', 'routable', 'base_expert',
                'champion_version', 'max_tokens', 'system_prompt'):
        print(f'{key}: {getattr(row, key)}')
    print('aliases: ' + ', '.join(f'{alias["name"]}={alias["version"]}' for alias in row.aliases))
    for version in row.versions:
        for key, value in version.items():
            if isinstance(value, dict):
                value = ', '.join(f'{name}={number:.4g}' for name, number in value.items())
            print(f'  v{version["version"]} {key}: {value}')


def create_expert(
    name: Annotated[str, typer.Option(help='[a-z][a-z0-9_-]*, new.')],
    domain: Annotated[str, typer.Option(help='What it is good in.')] = '',
    description: Annotated[str, typer.Option(help='One sentence for people.')] = '',
    system_prompt: Annotated[str, typer.Option(help='Instead of one made from the domain.')] = '',
    size: Annotated[str, typer.Option(help='An untrained model of its own: tiny, small, medium or large; without it, '
                                      'training makes an adapter.')] = '',
    base: Annotated[str, typer.Option(help='Make a candidate of this expert, for an A/B test.')] = '',
    artifact: Annotated[Path | None, typer.Option(exists=True, help='GGUF file or Hugging Face folder that becomes '
                                                  'version 1.')] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help='Limit of an answer.')] = 96,
    json: Json = False,
) -> None:
    """Create an expert; `moe train` gives it its first version."""
    with connect() as client:
        parent = client.experts.get(base) if base else None
        domain = domain or (parent.domain if parent else '')
        if not domain:
            raise InvalidRequest('An expert needs a domain; give --domain, or --base for a candidate.')
        prompt = system_prompt or (parent.system_prompt if parent else '')
        row = client.experts.create(name, domain, description, prompt, max_tokens, size=size,
                                    artifact=str(artifact.absolute()) if artifact else '',
                                    base_expert=parent.name if parent else '')
    if json:
        as_json(row)
    else:
        print(f'Created expert {row.name} with id {row.id}.')


def update(
    expert: Expert,
    description: Annotated[str | None, typer.Option(help='One sentence for people.')] = None,
    domain: Annotated[str | None, typer.Option(help='What it is good in.')] = None,
    system_prompt: Annotated[str | None, typer.Option(help='What every prompt begins with.')] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help='Limit of an answer.')] = None,
    max_seq_len: Annotated[int | None, typer.Option(min=16, help='Context: prompt and answer together.')] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=100, help='Of its requests.')] = None,
    routable: Annotated[bool | None, typer.Option(help='The router may choose it.')] = None,
    reason: Reason = '', json: Json = False,
) -> None:
    """Write fields of an expert."""
    given = {'description': description, 'domain': domain, 'system_prompt': system_prompt, 'max_tokens': max_tokens,
             'max_seq_len': max_seq_len, 'priority': priority, 'routable': routable}
    fields = {key: value for key, value in given.items() if value is not None}
    if not fields:
        raise InvalidRequest('Nothing to write; name a field, for example --description.')
    with connect() as client:
        row = client.experts.update(expert, reason, **fields)
    done(f'Wrote {", ".join(fields)} of {row.name}.', json, expert=row.name, fields=list(fields))


def disable(expert: Expert, reason: Reason = '', json: Json = False) -> None:
    """Take an expert out of service; `moe enable` brings it back."""
    _set_status(expert, 'disabled', reason, json)


def enable(expert: Expert, reason: Reason = '', json: Json = False) -> None:
    """Put a disabled expert into service again."""
    _set_status(expert, 'ready', reason, json)


def _set_status(expert: str, status: str, reason: str, json: bool) -> None:
    with connect() as client:
        row = client.experts.update(expert, reason, status=status)
    done(f'{row.name} is {row.status}.', json, expert=row.name, status=row.status)


def resize(expert: Expert, size: Size, reason: Reason = '', json: Json = False) -> None:
    """Make an untrained version of another size; `moe train` then trains it."""
    with connect() as client:
        version = client.experts.resize(expert, size, reason)
    done(f'Version {version["version"]} of size {size} is not trained yet; `moe train {expert} DATASET --method full` '
         'trains it.', json, **version)


def register_version(
    expert: Expert,
    artifact: Annotated[Path, typer.Argument(exists=True, help='GGUF file, or folder with safetensors.')],
    base: Annotated[str, typer.Option(help='For an adapter: the expert whose base it is served on.')] = '',
    alias: Annotated[str, typer.Option(help='Point this alias at it; champion serves it.')] = '',
    reason: Reason = '', json: Json = False,
) -> None:
    """Keep a copy of a model as a new version of an expert."""
    with connect() as client:
        version = client.experts.register(expert, str(artifact.absolute()), base=base, alias=alias, reason=reason)
    done(f'{expert} has version {version["version"]} ({version["kind"]}, {version["quantization"]}).', json, **version)


def set_alias(
    expert: Expert,
    alias: Annotated[str, typer.Argument(help='champion is what is served; others are yours to name.')],
    version: Annotated[int, typer.Argument(min=0, help='Number of a version; 0 removes the alias.')],
    reason: Reason = '', json: Json = False,
) -> None:
    """Point an alias at a version."""
    with connect() as client:
        before = client.experts.set_alias(expert, alias, version, reason)
    done(f'{alias} of {expert} is version {version or "none"} (before: {before or "none"}).', json, expert=expert,
         alias=alias, version=version, previous_version=before)


def delete_expert(
    expert: Expert,
    hard: Annotated[bool, typer.Option(help='Remove the rows too; only where nothing refers to them.')] = False,
    yes: Annotated[bool, typer.Option('--yes', '-y', help='Do not ask.')] = False,
    reason: Reason = '', json: Json = False,
) -> None:
    """Delete an expert."""
    if not yes:
        typer.confirm(f'Delete the expert {expert}?', abort=True)
    with connect() as client:
        client.experts.delete(expert, hard=hard, reason=reason)
    done(f'Deleted {expert}.', json, deleted=expert)


def promote(expert: Expert, reason: Reason = '', json: Json = False) -> None:
    """Serve a candidate in place of its base expert, or an expert's challenger in place of its champion."""
    with connect() as client:
        name, version, previous = client.experts.promote(expert, reason)
    done(f'{name} is served as version {version} (before: {previous}).', json, expert=name, version=version,
         previous_version=previous)


def rollback(expert: Expert, reason: Reason = '', json: Json = False) -> None:
    """Serve the version that was served before."""
    with connect() as client:
        name, version, previous = client.experts.rollback(expert, reason)
    done(f'{name} is served as version {version} (before: {previous}).', json, expert=name, version=version,
         previous_version=previous)


def history(
    expert: Annotated[str, typer.Argument(help='Id or name; none = all.')] = '',
    after: Annotated[int, typer.Option(help='Only events after this number.')] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help='At most so many.')] = 100,
    json: Json = False,
) -> None:
    """Show what happened to an expert: who did what, when and why."""
    with connect() as client:
        events = client.experts.history(expert, after, limit)
    if json:
        as_json(events)
        return
    rows(('number', 'time', 'event', 'expert', 'version', 'alias', 'by', 'reason'),
         [(row['sequence'], local_time(row['stamp']), row['kind'], row['expert'], row['version'] or '-',
           row['alias'] or '-', row['actor'] or '-', row['reason'] or '-') for row in events])


def ab_test(
    control: Annotated[str, typer.Option(help='Id or name of the expert that is served.')] = '',
    treatment: Annotated[str, typer.Option(help='Id or name of the candidate.')] = '',
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help='Of the sessions that the candidate answers.')] = 0.1,
    auto: Annotated[bool, typer.Option('--auto', help='Promote or roll back by the verdict.')] = False,
    status: Annotated[int, typer.Option(help='Show this test instead.')] = 0,
    stop: Annotated[int, typer.Option(help='End this test instead.')] = 0,
    reason: Reason = '', json: Json = False,
) -> None:
    """Let a candidate answer a share of the sessions; with --control alone, show the running test."""
    with connect() as client:
        if stop:
            test = client.ab_tests.stop(stop, reason)
        elif status:
            test = client.ab_tests.get(status)
        elif control and treatment:
            test = client.ab_tests.start(client.experts.name_of(control), client.experts.name_of(treatment),
                                         share, auto)
        elif control:
            test = client.ab_tests.get(control=client.experts.name_of(control))
        else:
            raise InvalidRequest('Give --control and --treatment to start a test, --status ID or --stop ID.')
    _show_test(test, json)


def _show_test(test: AbTest, json: bool) -> None:
    if json:
        as_json(test)
        return
    for key, value in vars(test).items():
        print(f'{key}: {"-" if value in (None, "") else value}')


def metadata(expert: Expert, json: Json = False) -> None:
    """Show what the file of the model that answers says about itself."""
    with connect() as client:
        values = client.experts.metadata(expert)
    if json:
        as_json(values)
        return
    for key, value in values.items():
        print(f'{key}: {json_text(value, None) if isinstance(value, str) and len(value) > 200 else value}')


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (list_experts, info, create_expert, update, disable, enable, resize, register_version, set_alias,
                 delete_expert, promote, rollback, history, ab_test, metadata):
        app.command(verb.__name__.replace('_', '-'))(verb)
