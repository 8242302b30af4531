"""Raw rows of a dataset file, one after another: JSONL, CSV, TSV, Parquet and plain text.

Nothing but the row at hand is in memory. No format that can run code is opened.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from moe_training.errors import DatasetError

MAX_LINE_BYTES = 4_194_304
SUFFIXES = ('.jsonl', '.ndjson', '.json', '.csv', '.tsv', '.parquet', '.txt', '.md')
_PARQUET_ROWS = 1024
# First bytes of what is never opened: pickles (protocol 2 and later) and archives, torch's files among them.
_REFUSED = (b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05', b'PK\x03\x04', b'\x1f\x8b')

RawRow = tuple[int, dict[str, Any] | str]  # 1-based line (Parquet: row) and the row, or the reason why it is bad


def raw_rows(path: Path) -> Iterator[RawRow]:
    """Rows of a file by its suffix; an unknown suffix is read as JSONL.

    Raises DatasetError where there is no such file or its format is not read.
    """
    try:
        with open(path, 'rb') as file:
            if file.read(4).startswith(_REFUSED):
                raise DatasetError(f'{path} is a pickle or an archive, which is never opened; give JSONL, CSV, '
                                   'Parquet or plain text.')
            file.seek(0)
            yield from _READERS.get(path.suffix.lower(), _jsonl)(file, path)
    except OSError as error:
        raise DatasetError(f'Dataset {path} cannot be read ({error.strerror or error}); name a file of '
                           f'{", ".join(SUFFIXES)}.') from error


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their number; None for one that is longer than MAX_LINE_BYTES."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES or line.endswith(b'\n'):
            yield number, line
            continue
        while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b'\n'):
            pass
        yield number, None


def _decoded(file: BinaryIO) -> Iterator[tuple[int, str, str]]:
    """Lines as (number, text, reason); one of text and reason is empty."""
    for number, line in _lines(file):
        if line is None:
            yield number, '', f'too long: more than {MAX_LINE_BYTES} bytes'
            continue
        try:
            yield number, line.decode('utf-8-sig' if number == 1 else 'utf-8'), ''
        except UnicodeDecodeError as error:
            yield number, '', f'not UTF-8 (byte {error.start})'


def _no_constant(name: str) -> float:
    raise ValueError(f'{name} is no JSON')


def parse_object(text: str) -> dict[str, Any]:
    """One JSON object; raises ValueError with the reason where it is none."""
    try:
        row = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f'not JSON ({error.msg} at column {error.colno})') from None
    except RecursionError:
        raise ValueError('not JSON that can be read (nested too deeply)') from None
    if not isinstance(row, dict):
        raise ValueError(f'a {type(row).__name__}, not an object')
    return row


def _jsonl(file: BinaryIO, _path: Path) -> Iterator[RawRow]:
    for number, text, reason in _decoded(file):
        if reason:
            yield number, reason
        elif text.strip():
            try:
                yield number, parse_object(text)
            except ValueError as error:
                yield number, str(error)


def _csv(file: BinaryIO, path: Path) -> Iterator[RawRow]:
    """Rows below a header; quoted cells may span lines, the first line of a row names it."""
    texts = _decoded(file)
    position, broken = 0, ''

    def lines() -> Iterator[str]:
        nonlocal position, broken
        for number, text, reason in texts:
            position, broken = number, broken or reason
            yield text or '\n'

    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(lines(), delimiter='\t' if path.suffix.lower() == '.tsv' else ',', strict=True)
    header: list[str] = []
    while True:
        begin, broken = position + 1, ''
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield begin, f'not CSV ({error})'
            continue
        if cells is None:
            return
        if broken:
            yield begin, broken
        elif not header:
            header = [cell.strip() for cell in cells]
            if len(set(header)) < len(header):
                raise DatasetError(f'{path} names a column twice in its first line; name each once.')
        elif len(cells) not in (0, len(header)):
            yield begin, f'{len(cells)} cells under {len(header)} columns'
        elif any(cell.strip() for cell in cells):
            yield begin, dict(zip(header, cells, strict=True))


def _parquet(file: BinaryIO, path: Path) -> Iterator[RawRow]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(_PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, {key: value for key, value in row.items() if value is not None}
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DatasetError(f'{path} is no Parquet file that can be read after row {number} ({error}).') from error


def _text(file: BinaryIO, _path: Path) -> Iterator[RawRow]:
    """Paragraphs: an empty line ends one."""
    begin, parts, bad = 0, [], ''
    for number, text, reason in _decoded(file):
        if text.strip() or reason:
            begin, bad = begin or number, bad or reason
            parts.append(text)
        elif begin:
            yield begin, bad or {'text': ''.join(parts).rstrip('\r\n')}
            begin, parts, bad = 0, [], ''
    if begin:
        yield begin, bad or {'text': ''.join(parts).rstrip('\r\n')}


_READERS = {'.csv': _csv, '.tsv': _csv, '.parquet': _parquet, '.txt': _text, '.md': _text}
