"""list-experts, info, create-expert."""

from __future__ import annotations

from typing import Annotated

import typer

from moe_client.cli.output import as_json, rows


def list_experts(
    domain: str = '', status: str = '',
    json: Annotated[bool, typer.Option('--json')] = False,
) -> None:
    """List the experts."""
    from moe_client import Client
    with Client() as client:
        experts = client.experts.list(domain, status)
    if json:
        as_json(experts)
        return
    rows(('id', 'name', 'domain', 'status', 'version', 'description'),
         [(row.id, row.name, row.domain, row.status, row.champion_version or '-', row.description)
          for row in experts])


def info(expert: Annotated[str, typer.Argument(metavar='ID', help='Id or name.')],
         json: Annotated[bool, typer.Option('--json')] = False) -> None:
    """Show an expert and its versions, one value a line."""
    from moe_client import Client
    with Client() as client:
        row = client.experts.get(expert)
    if json:
        as_json(row)
        return
    for key in ('id', 'name', 'domain', 'category', 'description', 'status', 'fallback', 'champion_version'):
        print(f'{key}: {getattr(row, key)}')
    for version in row.versions:
        for key, value in version.items():
            if isinstance(value, dict):
                value = ', '.join(f'{name}={number:.4g}' for name, number in value.items())
            print(f'  v{version["version"]} {key}: {value}')


def create_expert(
    name: Annotated[str, typer.Option()],
    domain: Annotated[str, typer.Option()],
    description: str = '', system_prompt: str = '',
) -> None:
    """Create an expert; `moe train` gives it its first version."""
    from moe_client import Client
    with Client() as client:
        row = client.experts.create(name, domain, description, system_prompt)
    print(f'Created expert {row.name} with id {row.id}.')


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command('list-experts')(list_experts)
    app.command('info')(info)
    app.command('create-expert')(create_expert)
