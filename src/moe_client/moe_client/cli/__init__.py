"""The `moe` command: thin verbs over the SDK and the supervisor.

Exit codes: 0 done, 1 an error in one sentence on standard error, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from moe_client import suite
from moe_client.cli import (
    ask,
    chat,
    datasets,
    demo,
    experts,
    health,
    interrupts,
    lifecycle,
    logs,
    models,
    registry,
    robot,
    routing,
    training,
)
from moe_client.cli.output import fail
from moe_client.errors import MoeError

app = typer.Typer(name='moe', no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
                  help='Domain-specific mixture of experts for ROS 2: one question, the right small local model.')
for module in (lifecycle, logs, ask, chat, routing, experts, models, training, datasets, registry, robot, health, demo):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            print(f'moe {version("moe_client")}')
        except PackageNotFoundError:
            print('moe (not installed)')
        raise typer.Exit()


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option('--debug', help='Show tracebacks.')] = False,
    url: Annotated[str, typer.Option(help='Go by this gateway instead of ROS; also MOE_URL.')] = '',
    api_key: Annotated[str, typer.Option(help='For the gateway; better MOE_API_KEY, which no process list shows.')]
    = '',
    _show: Annotated[bool, typer.Option('--version', callback=_version, is_eager=True, help='Show the version.')]
    = False,
) -> None:
    context.default_map = {'train': suite.training_defaults()}
    if debug:
        os.environ['MOE_DEBUG'] = '1'
    if url:
        os.environ['MOE_URL'] = url
    if api_key:
        os.environ['MOE_API_KEY'] = api_key


def main() -> int:
    """Run the command; every error becomes one sentence, unless --debug."""
    interrupts.watch()
    try:
        code = app(prog_name='moe', standalone_mode=False)  # the exit code where a verb raised typer.Exit
    except (KeyboardInterrupt, typer.Abort):
        print(file=sys.stderr)
        return 130
    except MoeError as error:
        if os.environ.get('MOE_DEBUG'):
            raise
        return fail(f'{error} (code {error.code})' if error.code else str(error))
    except Exception as error:
        # The last resort of a command line: a person gets a sentence, --debug gets the traceback.
        if os.environ.get('MOE_DEBUG'):
            raise
        # click's usage errors say more in format_message() than in str()
        shown = error.format_message() if hasattr(error, 'format_message') else str(error)
        fail(shown or type(error).__name__)
        return int(getattr(error, 'exit_code', 1))
    return code if isinstance(code, int) else 0
