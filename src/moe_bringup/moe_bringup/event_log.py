"""The log files: what each process said, and every event of the suite in one rotated file."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

LIMIT_BYTES = 10_000_000
KEPT = 5  # files beside the current one
FORMAT = '%(asctime)s - %(name)s - %(levelname)s - %(message)s'
_RCL_LINE = re.compile(r'\[(DEBUG|INFO|WARN|ERROR|FATAL)\] \[(\d+\.\d+)\] \[([^]]+)\]: (.*)')
_FIELD = re.compile(r'\b(request_id|expert|version)=([^\s,;]+)')
_LEVELS = {'DEBUG': logging.DEBUG, 'INFO': logging.INFO, 'WARN': logging.WARNING, 'ERROR': logging.ERROR,
           'FATAL': logging.CRITICAL}


class _File(RotatingFileHandler):
    """A rotated file. A full disk loses lines, it never stops whoever speaks."""

    def __init__(self, path: Path, formatter: logging.Formatter) -> None:
        super().__init__(path, maxBytes=LIMIT_BYTES, backupCount=KEPT, encoding='utf-8', errors='replace')
        self.setFormatter(formatter)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: there is nowhere to say it."""


class JsonFormatter(logging.Formatter):
    """One object a line, for programs: time, name, node, level, message, and request, expert, version where named."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        message = record.getMessage()
        stamp = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))
        return json.dumps({
            'time': f'{stamp}.{record.msecs:03.0f}Z', 'name': record.name, 'node': record.processName,
            'level': record.levelname, 'message': message, **dict(_FIELD.findall(message))}, ensure_ascii=False)


class EventLog:
    """Writes lines of processes to <folder>/<process>.log and, as events, to <folder>/app.log.

    Args:
        folder: of the files; it must exist.
        form: "text" (time - name - level - message) or "json".
    """

    def __init__(self, folder: Path, form: str = 'text') -> None:
        self._folder = folder
        self._events = _File(folder / 'app.log', JsonFormatter() if form == 'json' else logging.Formatter(FORMAT))
        self._plain = logging.Formatter('%(message)s')
        self._processes: dict[str, _File] = {}
        self._lock = threading.Lock()

    def write(self, process: str, line: str) -> None:
        """Write a line that a process has said; safe from any thread."""
        with self._lock:
            if process not in self._processes:
                self._processes[process] = _File(self._folder / f'{process}.log', self._plain)
        self._processes[process].handle(_record(process, logging.INFO, line, process))
        if line.strip():
            self._events.handle(event(process, line))

    def close(self) -> None:
        """Close the files."""
        for file in (self._events, *self._processes.values()):
            file.close()


def event(process: str, line: str) -> logging.LogRecord:
    """A line as a record: time, name and level are those of rcl where it wrote the line."""
    found = _RCL_LINE.match(line)
    if not found:
        return _record(process, logging.INFO, line, process)
    level, stamp, name, message = found.groups()
    record = _record(name, _LEVELS[level], message, process)
    record.created = float(stamp)
    record.msecs = 1000 * (record.created % 1)
    return record


def _record(name: str, level: int, message: str, process: str) -> logging.LogRecord:
    record = logging.LogRecord(name, level, '', 0, message, None, None)
    record.processName = process
    return record
