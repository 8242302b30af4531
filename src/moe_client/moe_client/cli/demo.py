"""demo: the whole suite at work, in front of a person."""

from __future__ import annotations

import json as jsonlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ament_index_python.packages import get_package_share_directory

from moe_client import suite
from moe_client.cli import interrupts
from moe_client.cli.output import console, rate
from moe_client.cli.training import show
from moe_client.errors import MoeError
from moe_client.types import Chunk, Generation

if TYPE_CHECKING:
    from moe_client.client import Client

# (prompt, the expert that should answer it). The first three are put in words that no note is near, so that the expert
# reads and writes; the fourth is answered by a note. The fifth is out of every domain, the last one moves the head.
PROMPTS = (
    ('Which module turns script arguments into options?', 'python'),
    ('Suppose my ssh drops, how does the job survive?', 'linux'),
    ('My colleague wants more output from his node.', 'robotics'),
    ('How do I list all active ROS 2 topics?', 'robotics'),
    ('What is the capital of France?', 'general'),
    ('Look left 30 degrees', 'motion'),
)
SENSORS = ('image_raw', 'imu/data', 'joint_states')
MEASURE_S = 3.0
TOLERANCE_DEG = 2.0


def demo(train: Annotated[bool, typer.Option(
        '--train', help='Also train a new expert from a JSONL file, route to it and ask it.')] = False) -> None:
    """Start the simulated suite, ask six questions, move the head, show the sensors, stop; 0 only if all worked."""
    from moe_client import Client
    begin = time.monotonic()
    with suite.running(simulate=True) as own:
        with Client() as client:
            console.print('[bold]Starting the suite[/bold]' if own else '[bold]Asking the running suite[/bold]')
            suite.wait_until_ready(client, tell=lambda line: console.print(f'  waiting: {line}'), joints=True)
            console.print(f'  ready after {time.monotonic() - begin:.1f} s')
            client.robot.execute('{"action":"center"}')
            failures = [failure for prompt, expected in PROMPTS if (failure := _ask(client, prompt, expected))]
            failures += _sensors(client)
            if train:
                failures += _train(client)
        console.print('[bold]Stopping[/bold]' if own else '')
    interrupts.check()
    if own and suite.supervisor_pid():
        failures.append('the suite is still running')
    if failures:
        raise MoeError('The demo did not do all it should: ' + '; '.join(failures) + '. `moe logs` shows why.')
    console.print(f'Everything worked, {time.monotonic() - begin:.0f} s in all.')


def _ask(client: Client, prompt: str, expected: str) -> str:
    """Ask one prompt and print all about the answer; returns what went wrong, '' = nothing."""
    interrupts.check()
    console.print(f'\n[bold]» {prompt}[/bold]')
    before = client.robot.joints() if expected == 'motion' else {}
    sent = time.monotonic()
    first_s, told, answer = math.nan, False, None
    for item in client.inference.generate_stream(prompt):
        if isinstance(item, Generation):
            answer = item
            continue
        if not told:
            _tell_choice(item)
            told = True
        if item.text:
            if math.isnan(first_s):
                first_s = time.monotonic() - sent
            print(item.text, end='', flush=True)
    print()
    assert answer is not None  # the stream ends with a Generation or raises
    console.print(f'  first token after {1000 * first_s:.0f} ms, {rate(answer.tokens_per_second)}, '
                  f'{answer.completion_tokens} tokens, {answer.finish_reason}', style='dim')
    if answer.expert != expected:
        return f'"{prompt}" was answered by {answer.expert}, not by {expected}'
    if not answer.text.strip():
        return f'"{prompt}" got an empty answer'
    if expected == 'general' and not answer.route.abstained:
        return f'"{prompt}" is out of every domain, but the router did not abstain'
    return _joints(client, before, answer.text) if before else ''


def _tell_choice(chunk: Chunk) -> None:
    doubt = ', out of every domain' if chunk.abstained else ''
    console.print(f'  {chunk.expert}@{chunk.expert_version}, confidence {chunk.confidence:.2f}{doubt}', style='cyan')


def _joints(client: Client, before: dict[str, float], answer: str) -> str:
    after = client.robot.joints()
    for name, position in after.items():
        console.print(f'  {name}: {math.degrees(before[name]):+.1f}° -> {math.degrees(position):+.1f}°')
    moved = math.degrees(after['pan'] - before['pan'])
    wanted = float(jsonlib.loads(answer).get('by', math.nan))
    if not (abs(moved - wanted) <= TOLERANCE_DEG and abs(wanted - 30.0) < 0.5):
        return f'pan moved by {moved:.1f} degrees, not by 30'
    return ''


def _sensors(client: Client) -> list[str]:
    interrupts.check()
    console.print('\n[bold]Sensors[/bold]')
    failures = []
    for name, hertz in client.robot.rates(SENSORS, MEASURE_S).items():
        console.print(f'  {name}: {hertz:.1f} Hz')
        if hertz <= 0.0:
            failures.append(f'no message on {name} within {MEASURE_S:g} s')
    return failures


def _train(client: Client) -> list[str]:
    console.print('\n[bold]A new expert: coffee[/bold]')
    begin = time.monotonic()
    dataset = Path(get_package_share_directory('moe_bringup')) / 'data' / 'demo' / 'coffee.jsonl'
    name = f'coffee_{int(time.time())}'
    client.experts.create(name, 'coffee', 'The coffee machine.')
    last = show(client.training.train(name, str(dataset.resolve()), epochs=8.0))
    console.print(f'  version {last.version} after {time.monotonic() - begin:.0f} s')
    question = 'How do I switch on the coffee machine?'
    give_up = time.monotonic() + 60.0
    while client.router.route(question).choice != name and time.monotonic() < give_up:
        time.sleep(0.5)
    return [failure for failure in (_ask(client, question, name),) if failure]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(demo)
