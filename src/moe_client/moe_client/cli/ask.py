"""ask: one question, one answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moe_client.cli.connection import connect
from moe_client.cli.output import Json, as_json, console, rate
from moe_client.types import Chunk


def ask(
    prompt: Annotated[str, typer.Argument(help='The question, or a motion in words.')],
    expert: Annotated[str, typer.Option(help='Ask this expert instead of the one the router chooses.')] = '',
    session: Annotated[str, typer.Option(help='Conversation key.')] = '',
    json_schema: Annotated[Path | None, typer.Option(exists=True, help='The answer must match this schema.')] = None,
    max_tokens: Annotated[int, typer.Option(min=0, help='0 = the expert\'s own limit.')] = 0,
    temperature: Annotated[float, typer.Option(help='-1 = the expert\'s own.')] = -1.0,
    top_p: Annotated[float, typer.Option(help='-1 = the expert\'s own.')] = -1.0,
    top_k: Annotated[int, typer.Option(help='-1 = the expert\'s own.')] = -1,
    seed: Annotated[int, typer.Option(help='The same seed, the same answer; -1 = random.')] = -1,
    ground: Annotated[bool, typer.Option('--ground', help='Let the expert know the robot\'s last state.')] = False,
    stream: Annotated[bool, typer.Option(help='Print the answer while it comes.')] = True,
    json: Json = False,
    timeout: Annotated[float, typer.Option(help='Seconds.')] = 120.0,
) -> None:
    """Ask the suite; a motion is carried out."""
    with connect() as client:
        expert = client.experts.name_of(expert) if expert else ''
        schema = json_schema.read_text() if json_schema else ''
        for item in client.inference.generate_stream(
                prompt, expert=expert, session=session, json_schema=schema, max_tokens=max_tokens,
                temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, timeout=timeout,
                ground=ground or None):
            if isinstance(item, Chunk):
                if stream and not json:
                    print(item.text, end='', flush=True)
            elif json:
                as_json(item)
            else:
                print('' if stream else item.text)
                if console.is_terminal:
                    unsure = ', nobody was sure enough' if item.route.abstained else ''
                    unsure += f', {len(item.sources)} notes were about as near' if item.doubtful else ''
                    console.print(f'[dim]{item.expert}@{item.expert_version} · confidence '
                                  f'{item.route.confidence:.2f}{unsure} · {rate(item.tokens_per_second)}[/dim]')


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(ask)
