"""What the router does and learns: route, router stats|explain|correct|replay|routes, retrain-router, feedback."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from moe_client.cli.connection import connect
from moe_client.cli.output import Json, as_json, done, follow, local_time, metrics_line, rows, values
from moe_client.errors import InvalidRequest
from moe_client.transport import Values
from moe_client.types import Route

router = typer.Typer(help='Look into the router and teach it.', no_args_is_help=True)
Prompt = Annotated[str, typer.Argument(metavar='PROMPT')]


def route(prompt: Prompt, json: Json = False) -> None:
    """Show which expert would answer, and how sure the router is."""
    with connect() as client:
        decision = client.router.route(prompt)
    if json:
        as_json(decision)
    else:
        _show(decision)


def _show(decision: Route) -> None:
    unsure = '\tabstained' if decision.abstained else ''
    print(f'{decision.choice}\t{decision.confidence:.3f}\t{decision.stage}{unsure}')
    for name, probability in decision.ranked:
        print(f'  {name}\t{probability:.3f}')


@router.command()
def stats(json: Json = False) -> None:
    """Show how often each expert was chosen, and how sure the router was."""
    with connect() as client:
        found = client.router.stats()
    if json:
        as_json(found)
        return
    rows(('expert', 'selections', 'mean_confidence'),
         [(name, count, f'{confidence:.3f}') for name, count, confidence in
          zip(found.experts, found.selections, found.mean_confidence)])
    print(f'{found.requests} requests, {found.abstained} out of every domain; fit {found.router_version}, '
          f'{found.strategy}, threshold {found.threshold:g}')
    if found.report:
        values(jsonlib.loads(found.report))


@router.command()
def explain(prompt: Prompt, json: Json = False) -> None:
    """Show why the router decides as it does: scores, nearest samples, thresholds."""
    with connect() as client:
        decision, explanation = client.router.explain(prompt)
    if json:
        as_json({'decision': decision, 'explanation': explanation})
        return
    _show(decision)
    values(explanation)


@router.command()
def correct(
    request_id: Annotated[str, typer.Argument(help='Of the answer; `moe router routes` lists them.')],
    expert: Annotated[str, typer.Argument(help='Id or name of the expert that should have answered.')],
    json: Json = False,
) -> None:
    """Say which expert should have answered; the router learns it at its next fit."""
    with connect() as client:
        name = client.experts.name_of(expert)
        client.router.correct(request_id, name)
    done(f'{request_id} should have been answered by {name}.', json, request_id=request_id, expert=name)


@router.command()
def routes(
    expert: Annotated[str, typer.Option(help='Only those it was chosen for.')] = '',
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    json: Json = False,
) -> None:
    """List the router's decisions, newest first."""
    with connect() as client:
        records = client.router.routes(client.experts.name_of(expert) if expert else '', limit=limit)
    if json:
        as_json(records)
        return
    rows(('time', 'request', 'expert', 'confidence', 'stage', 'corrected', 'prompt'),
         [(local_time(row['stamp']), row['request_id'], row['decision']['choice'],
           f'{row["decision"]["confidence"] or 0:.3f}', row['decision']['stage'], row['corrected'] or '-',
           row['prompt'] or '-') for row in records])


@router.command()
def replay(
    file: Annotated[Path | None, typer.Argument(metavar='[FILE]', exists=True, dir_okay=False, show_default=False,
                                                help='JSON as `moe router routes --json` writes it, or a line for '
                                                'each prompt. Default: the decisions that the registry kept.')] = None,
    fit: Annotated[int, typer.Option(min=0, help='Fit to decide by, on this machine; 0 = the one that serves.')] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help='So many of the newest that the registry kept.')] = 100,
    json: Json = False,
) -> None:
    """Decide a log of prompts again, by this fit of the router or another; shows what is decided otherwise."""
    with connect() as client:
        records = _logged(file) if file else client.router.routes(limit=limit)
        log = [row for row in records if row['prompt']]
        if not log:
            raise InvalidRequest('No decision was kept with its prompt; the router\'s parameter keep_prompts decides '
                                 'whether they are.')
        again = client.router.replay(log, fit)
    changed = [(row['request_id'], row['before'], row['choice'], f'{row["confidence"]:.3f}', row['corrected'] or '-',
                row['prompt']) for row in again if row['before'] != row['choice']]
    rows(('request', 'before', 'now', 'confidence', 'corrected', 'prompt'), changed, json)
    if not json:
        print(f'{len(changed)} of {len(again)} decisions are others now.')
        if labelled := [row for row in again if row['corrected']]:
            print(f'{sum(row["choice"] == row["corrected"] for row in labelled)} of {len(labelled)} as a person said.')


def _logged(file: Path) -> list[Values]:
    """The records of a log: a JSON list, or an object a line. Raises InvalidRequest with the place that is neither."""
    try:
        text = file.read_text(encoding='utf-8')
        entries = jsonlib.loads(text) if text.lstrip().startswith('[') else [
            jsonlib.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        raise InvalidRequest(f'{file} is neither a JSON list nor JSON lines: {error}') from error
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get('prompt'), str):
            raise InvalidRequest(f'Entry {number} of {file} is no JSON object with a prompt.')
    return entries


def retrain_router(
    force: Annotated[bool, typer.Option(help='Activate it even where it is worse on held-out prompts.')] = False,
    json: Json = False,
) -> None:
    """Fit the router anew from datasets, decisions and corrections."""
    with connect() as client:
        result = follow(client.router.retrain(force), json)
    version = result.get('version', {})
    state = 'is active' if result.get('activated') else 'was refused by the gate; the old fit stays'
    done(f'Fit {version.get("number")} of {version.get("samples")} samples {state}: {metrics_line(version)}', json,
         **result)


def feedback(
    request_id: Annotated[str, typer.Argument(help='Of the answer; `moe ask --json` shows it.')],
    score: Annotated[float, typer.Argument(min=-1.0, max=1.0, help='-1 (bad) .. 1 (good).')],
    comment: Annotated[str, typer.Option()] = '',
    json: Json = False,
) -> None:
    """Judge an answer."""
    with connect() as client:
        client.inference.feedback(request_id, score, comment)
    done('Noted.', json, request_id=request_id, score=score)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(route)
    app.command('retrain-router')(retrain_router)
    app.command()(feedback)
    app.add_typer(router, name='router')
