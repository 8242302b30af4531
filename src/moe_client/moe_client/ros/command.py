"""`ros2 moe ...`: the moe command as a verb of ros2cli."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ros2cli.command import CommandExtension


class MoeCommand(CommandExtension):  # type: ignore[misc]
    """Domain-specific mixture of experts: the same as the command `moe`."""

    def add_arguments(self, parser: argparse.ArgumentParser, cli_name: str, *, argv: Any = None) -> None:
        """Take everything behind `ros2 moe` as it stands."""
        parser.add_argument('argv', nargs=argparse.REMAINDER, help='as `moe --help` shows')
        parser.prefix_chars = '\0'  # an option in front, as in `ros2 moe --version`, would not count as the remainder

    def main(self, *, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
        """Run the verb."""
        from moe_client.cli import main
        at = sys.argv.index('moe') if 'moe' in sys.argv else len(sys.argv) - 1
        sys.argv = ['moe', *sys.argv[at + 1:]]
        return main()
