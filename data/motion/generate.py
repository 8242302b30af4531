"""Makes the motion dataset: sentences and the motion command (JSON) that they mean.

Wordings are written by hand; a seeded generator crosses them with numbers so that the model learns to copy a
number and not to remember it. Training and held-out wordings are two lists without a common template.

    python3 data/motion/generate.py            writes train.jsonl and heldout.jsonl
    python3 data/motion/generate.py --check    fails where the files are not what this program writes
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

from wordings import HELDOUT, TRAIN, Wordings

FOLDER = Path(__file__).parent
SEED = 20
TRAIN_ROWS, HELDOUT_ROWS = 1600, 240
DEFAULT_DEG = {'pan': 30, 'tilt': 20}
LITTLE_DEG = {'pan': 10, 'tilt': 10}
FAR_DEG = {'pan': 60, 'tilt': 40}
LIMIT_DEG = {'pan': 90, 'tilt': 60}
# direction: (joint, sign); pan is positive to the left, tilt positive up (REP 103)
DIRECTIONS = {'left': ('pan', 1), 'right': ('pan', -1), 'up': ('tilt', 1), 'down': ('tilt', -1)}
ONES = ('zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen '
        'seventeen eighteen nineteen').split()
TENS = 'zero ten twenty thirty forty fifty sixty seventy eighty ninety'.split()

Command = dict[str, object] | list[dict[str, object]]


def in_words(number: int) -> str:
    """Spell a number of 0..99."""
    if number < 20:
        return ONES[number]
    return TENS[number // 10] + ('' if number % 10 == 0 else '-' + ONES[number % 10])


def spoken(number: int, draw: random.Random) -> str:
    """Write an angle the way people do: 30 degrees, 30°, 30 deg, thirty degrees."""
    return draw.choices(
        (f'{number} degrees', f'{number}°', f'{number} deg', f'{in_words(number)} degrees'), (6, 1, 1, 2))[0]


def signed(number: int, draw: random.Random) -> str:
    """Write an absolute angle; a negative one with a sign or the word minus."""
    text = spoken(abs(number), draw)
    return text if number >= 0 else draw.choice(('-', 'minus ')) + text if text[0].isdigit() else 'minus ' + text


def relative(wordings: Wordings, draw: random.Random) -> tuple[str, Command]:
    """A direction with a number."""
    direction = draw.choice(list(DIRECTIONS))
    joint, sign = DIRECTIONS[direction]
    number = draw.randint(1, LIMIT_DEG[joint])
    frame = draw.choice(wordings.vertical if joint == 'tilt' and draw.random() < 0.4 else wordings.relative)
    verb = draw.choice(('raise', 'lift') if sign > 0 else ('lower', 'drop'))
    return (frame.format(d=direction, n=spoken(number, draw), v=verb), {'joint': joint, 'by': sign * number})


def amount(wordings: Wordings, draw: random.Random) -> tuple[str, Command]:
    """A direction without a number, perhaps with a word for how far."""
    direction = draw.choice(list(DIRECTIONS))
    joint, sign = DIRECTIONS[direction]
    frames, degrees = draw.choices(
        ((wordings.plain, DEFAULT_DEG), (wordings.little, LITTLE_DEG), (wordings.far, FAR_DEG)), (3, 2, 2))[0]
    return draw.choice(frames).format(d=direction), {'joint': joint, 'by': sign * degrees[joint]}


def absolute(wordings: Wordings, draw: random.Random) -> tuple[str, Command]:
    """A joint and the position where it should be."""
    joint = draw.choice(('pan', 'tilt'))
    number = draw.randint(-LIMIT_DEG[joint], LIMIT_DEG[joint])
    return draw.choice(wordings.absolute).format(j=joint, n=signed(number, draw)), {'joint': joint, 'to': number}


def sequence(wordings: Wordings, draw: random.Random) -> tuple[str, Command]:
    """Two moves, one after the other."""
    first, second = draw.sample(list(DIRECTIONS), 2)
    moves: list[dict[str, object]] = []
    texts = []
    numbered = draw.random() < 0.65
    for direction in (first, second):
        joint, sign = DIRECTIONS[direction]
        number = draw.randint(1, LIMIT_DEG[joint]) if numbered else DEFAULT_DEG[joint]
        moves.append({'joint': joint, 'by': sign * number})
        texts.append(f'{direction} {spoken(number, draw)}' if numbered else direction)
    return draw.choice(wordings.sequence).format(a=texts[0], b=texts[1]), moves


def fixed(name: str, command: Command) -> Callable[[Wordings, random.Random], tuple[str, Command]]:
    """A row whose command does not depend on its words."""
    return lambda wordings, draw: (draw.choice(getattr(wordings, name)), command)


def unclear(wordings: Wordings, draw: random.Random) -> tuple[str, Command]:
    """No direction, or nothing that the head has."""
    return (draw.choice(wordings.unclear).format(n=spoken(draw.randint(2, 90), draw)), {'refuse': 'unclear'})


def beyond(wordings: Wordings, draw: random.Random) -> tuple[str, Command]:
    """Farther than the head may turn: written down as asked, so that the motion node refuses it and says why."""
    direction = draw.choice(list(DIRECTIONS))
    joint, sign = DIRECTIONS[direction]
    number = draw.choice((95, 100, 110, 120, 125, 130, 135, 140, 145, 150, 160, 170, 180, 190, 200, 225, 250, 270, 300,
                          315, 333, 360, 400, 450, 500, 720))
    return draw.choice(wordings.relative).format(d=direction, n=f'{number} degrees'), {'joint': joint, 'by': sign * number}


KINDS: tuple[tuple[str, float, Callable[[Wordings, random.Random], tuple[str, Command]]], ...] = (
    ('relative', 0.32, relative), ('amount', 0.20, amount), ('absolute', 0.09, absolute),
    ('sequence', 0.16, sequence), ('center', 0.08, fixed('center', {'action': 'center'})),
    ('stop', 0.04, fixed('stop', {'action': 'stop'})), ('unclear', 0.05, unclear),
    ('unsafe', 0.03, fixed('unsafe', {'refuse': 'unsafe'})), ('beyond', 0.03, beyond))


def rows(wordings: Wordings, count: int, seed: int) -> list[str]:
    """Draw `count` distinct rows as JSON lines."""
    draw = random.Random(seed)
    lines: dict[str, str] = {}
    for _ in range(100 * count):
        if len(lines) == count:
            break
        name, _share, make = draw.choices(KINDS, [share for _n, share, _m in KINDS])[0]
        prompt, command = make(wordings, draw)
        if draw.random() < 0.25:
            prompt = prompt.lower()
        if draw.random() < 0.15:
            prompt = prompt.rstrip('.!')
        completion = json.dumps(command, separators=(',', ':'))
        lines.setdefault(prompt, json.dumps(
            {'prompt': prompt, 'completion': completion, 'fact': name, 'intent': name}, ensure_ascii=False))
    return list(lines.values())


def main() -> int:
    """Write the files or, with --check, compare them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--check', action='store_true')
    check = parser.parse_args().check
    stale = []
    for name, wordings, count, seed in (('train', TRAIN, TRAIN_ROWS, SEED), ('heldout', HELDOUT, HELDOUT_ROWS, SEED + 1)):
        path = FOLDER / f'{name}.jsonl'
        text = '\n'.join(rows(wordings, count, seed)) + '\n'
        if not check:
            path.write_text(text, encoding='utf-8')
        elif not path.is_file() or path.read_text(encoding='utf-8') != text:
            stale.append(path.name)
    if stale:
        print(f'{", ".join(stale)}: not what generate.py writes; run it without --check.', file=sys.stderr)
    return 1 if stale else 0


if __name__ == '__main__':
    sys.exit(main())
