"""Which rows each step takes, and how rows become tensors."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moe_training.chat import TokenRow
from moe_training.settings import Settings

POOL_BATCHES = 8
Sequences = list[list[TokenRow]]  # every sequence of a batch holds one row, or several where they are packed


def batches(rows: Sequence[TokenRow], size: int, generator: random.Random) -> list[list[TokenRow]]:
    """One epoch in random order; within a pool of a few batches, rows of like length stand together (less padding).

    Sorting the whole epoch by length would put rows of one kind into the same batches, and rare kinds are then not
    learned.
    """
    order = list(rows)
    generator.shuffle(order)
    pool = size * POOL_BATCHES
    groups: list[list[TokenRow]] = []
    for start in range(0, len(order), pool):
        part = sorted(order[start:start + pool], key=len)
        groups += [part[at:at + size] for at in range(0, len(part), size)]
    generator.shuffle(groups)
    return groups


class StepRows:
    """The rows of every step: a function of seed and step, so a fit resumes anywhere without a state of its own."""

    def __init__(self, rows: Sequence[TokenRow], size: int, seed: int) -> None:
        self._rows, self._size, self._seed = rows, size, seed
        self.per_epoch = max(1, math.ceil(len(rows) / size))
        self._epoch, self._groups = -1, [[rows[0]]]

    def __getitem__(self, step: int) -> list[TokenRow]:
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._groups = batches(self._rows, self._size, random.Random(f'{self._seed} {epoch}'))
            self._epoch = epoch
        return self._groups[position]


def packed(rows: list[TokenRow], width: int) -> Sequences:
    """Rows put one behind another into sequences of at most `width` tokens, longest first into the first that fits."""
    sequences: Sequences = []
    room: list[int] = []
    for row in sorted(rows, key=len, reverse=True):
        for index, left in enumerate(room):
            if len(row) <= left:
                sequences[index].append(row)
                room[index] -= len(row)
                break
        else:
            sequences.append([row])
            room.append(width - len(row))
    return sequences


def microbatches(rows: list[TokenRow], settings: Settings) -> list[Sequences]:
    """A step's rows divided into batches of at most batch_size sequences."""
    sequences = packed(rows, settings.max_seq_len) if settings.packing else [[row] for row in rows]
    size = settings.batch_size
    return [sequences[at:at + size] for at in range(0, len(sequences), size)]


@dataclass
class Batch:
    """Tensors of one batch: ids (b, w); positions (b, w) and mask (b, 1, w, w) only where rows are packed.

    `rows`, `columns` (n,) say where the state stands that predicts each of the n answer tokens `targets` (n,).
    Padding is on the right and a model is causal, so no state of an answer ever sees it and needs no mask.
    """

    ids: Any
    rows: Any
    columns: Any
    targets: Any
    positions: Any = None
    mask: Any = None
    tokens: int = 0

    def to(self, device: Any) -> Batch:
        """The batch on a device."""
        move = {name: getattr(self, name).to(device) for name in ('ids', 'rows', 'columns', 'targets')}
        if self.mask is not None:
            move |= {'positions': self.positions.to(device), 'mask': self.mask.to(device)}
        return Batch(**move, tokens=self.tokens)


def collate(sequences: Sequences) -> Batch:
    """Tensors of a batch."""
    import torch

    lengths = [sum(map(len, sequence)) for sequence in sequences]
    width = max(lengths)
    ids = torch.zeros((len(sequences), width), dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    several = any(len(sequence) > 1 for sequence in sequences)
    positions = torch.zeros_like(ids)
    segments = torch.zeros_like(ids)
    for index, sequence in enumerate(sequences):
        begin = 0
        for number, row in enumerate(sequence):
            tokens = row.prompt + row.answer
            end = begin + len(tokens)
            ids[index, begin:end] = torch.tensor(tokens)
            positions[index, begin:end] = torch.arange(len(tokens))
            segments[index, begin:end] = number + 1
            first = begin + len(row.prompt) - 1  # the state before a token predicts it
            rows += [index] * len(row.answer)
            columns += range(first, first + len(row.answer))
            targets += row.answer
            begin = end
    batch = Batch(ids, torch.tensor(rows), torch.tensor(columns), torch.tensor(targets), tokens=sum(lengths))
    if several:
        causal = torch.ones((width, width), dtype=torch.bool).tril()
        batch.mask = (causal & (segments[:, :, None] == segments[:, None, :]))[:, None]
        batch.positions = positions
    return batch
