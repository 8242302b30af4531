"""chat: a conversation, with what was said before."""

from __future__ import annotations

import contextlib
import re
import readline
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from moe_client import suite
from moe_client.cli.connection import connect
from moe_client.cli.output import console
from moe_client.client import Client
from moe_client.errors import MoeError
from moe_client.types import Generation

HELP = ('/reset forgets the conversation, /expert NAME asks one expert, /expert lets the router choose again, '
        '/quit, /exit, /bye or Ctrl-D ends.\nA line that ends with \\ goes on; Ctrl-C stops the answer.')
QUOTE = '"""'


class Conversation:
    """What was said, and who is asked."""

    def __init__(self, client: Client, expert: str, max_tokens: int) -> None:
        self._client, self.expert, self._max_tokens = client, expert, max_tokens
        self.messages: list[dict[str, str]] = []

    def say(self, text: str) -> None:
        """Print the answer while it comes; Ctrl-C stops it, and what came of it stays in the conversation."""
        self.messages.append({'role': 'user', 'content': text})
        spoken, who = '', ''
        stream = self._client.inference.chat_stream(self.messages, expert=self.expert, max_tokens=self._max_tokens)
        try:
            with contextlib.closing(stream):
                for item in stream:
                    if isinstance(item, Generation):
                        who = f'{item.expert}@{item.expert_version} · confidence {item.route.confidence:.2f}'
                    else:
                        spoken += item.text
                        print(item.text, end='', flush=True)
        except KeyboardInterrupt:
            who = 'stopped'
        except MoeError as error:
            self.messages.pop()
            print(f'moe: {error}', file=sys.stderr)
            return
        print()
        if console.is_terminal:
            console.print(who, style='dim')
        if spoken:
            self.messages.append({'role': 'assistant', 'content': spoken})
        else:
            self.messages.pop()


def chat(
    expert: Annotated[str, typer.Option(help='Ask this expert instead of the one the router chooses.')] = '',
    max_tokens: Annotated[int, typer.Option(min=0, help='0 = the expert\'s own limit.')] = 0,
) -> None:
    """Talk with the suite; the conversation is remembered, /help says more."""
    with connect() as client, _remembered():
        talk = Conversation(client, client.experts.name_of(expert) if expert else '', max_tokens)
        if sys.stdin.isatty():
            print(HELP)
        for text in _inputs():
            command, _, argument = text.partition(' ')
            if command in ('/quit', '/exit', '/bye'):
                return
            if command == '/help':
                print(HELP)
            elif command == '/reset':
                talk.messages.clear()
            elif command == '/expert':
                talk.expert = argument.strip()
            elif re.fullmatch(r'/[a-z]+', text):  # "/dev/video0 is missing" is a question
                print(f'moe: There is no {text}; /help names what there is.', file=sys.stderr)
            elif text.strip():
                talk.say(text)


def _inputs() -> Iterator[str]:
    """What a person types, several lines as one where they belong together; ends with Ctrl-D."""
    prompt = '» ' if sys.stdin.isatty() else ''
    while True:
        try:
            text = input(prompt)
            while text.endswith('\\'):
                text = text[:-1] + '\n' + input('… ' if prompt else '')
            if text.startswith(QUOTE):
                while not text.rstrip().endswith(QUOTE) or len(text) < 2 * len(QUOTE):
                    text += '\n' + input('… ' if prompt else '')
                text = text.strip()[len(QUOTE):-len(QUOTE)].strip()
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            if prompt:
                print()
            return
        yield text


@contextlib.contextmanager
def _remembered() -> Iterator[None]:
    """Keep what was typed, for the arrow keys, over the end of the program."""
    path = suite.home() / 'chat_history'
    if not sys.stdin.isatty():
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.set_history_length(1000)
            readline.write_history_file(path)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(chat)
