"""Runs an installed program under a profiler and writes a report that opens in a browser.

`python -m moe_bringup.profiling cpu|memory|line REPORT PROGRAM [ARGUMENTS]`: time by function (cProfile, every
thread), memory that is still held by source line (tracemalloc), or time by source line of the program's own package
(line_profiler).
"""

from __future__ import annotations

import cProfile
import html
import importlib
import io
import pkgutil
import pstats
import runpy
import sys
import threading
import tracemalloc
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

ROWS = 100
FRAMES = 12  # of each allocation's traceback
SNAPSHOT_S = 5.0
_PAGE = ('<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>'
         'body{{font:14px/1.4 system-ui;margin:2em;max-width:110em}}table{{border-collapse:collapse}}'
         'td,th{{padding:.2em .8em;text-align:left;border-bottom:1px solid #8884}}'
         'td.n{{text-align:right;font-variant-numeric:tabular-nums}}pre{{font-size:12px}}'
         ':root{{color-scheme:light dark}}</style><h1>{title}</h1>{body}</html>\n')


def main(arguments: list[str] | None = None) -> int:
    """Profile a program; the report is written however it ends."""
    kind, report, *line = arguments if arguments is not None else sys.argv[1:]
    sys.argv = line
    program = Path(line[0])
    body = {'cpu': _cpu, 'memory': _memory, 'line': _lines}[kind](program)
    path = Path(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')
    temporary.write_text(_PAGE.format(title=html.escape(f'{program.name}: {kind}'), body=body), encoding='utf-8')
    temporary.replace(path)
    print(f'Profile written: {path}', flush=True)
    return 0


def _run(program: Path) -> None:
    """Run a script as the interpreter would; its exit is an end, not an error."""
    try:
        runpy.run_path(str(program), run_name='__main__')
    except SystemExit as end:
        if end.code not in (None, 0):
            print(end.code, file=sys.stderr, flush=True)


def _cpu(program: Path) -> str:
    profiles = [cProfile.Profile()]
    if sys.version_info < (3, 12):  # later, one profile sees all threads
        def begin(*_event: Any) -> None:
            profiles.append(cProfile.Profile())
            profiles[-1].enable()
        threading.setprofile(begin)
    profiles[0].enable()
    try:
        _run(program)
    finally:
        threading.setprofile(None)
        profiles[0].disable()
    total = pstats.Stats(profiles[0])
    for profile in profiles[1:]:
        try:
            total.add(profile)
        except TypeError:  # a thread that called nothing
            continue
    rows = sorted(total.stats.items(), key=lambda row: -row[1][2])[:ROWS]  # type: ignore[attr-defined]
    return _table(('own time [s]', 'with callees [s]', 'calls', 'function'), [
        (f'{own:.3f}', f'{whole:.3f}', str(calls), f'{name} {file}:{number}')
        for (file, number, name), (_primitive, calls, own, whole, _callers) in rows])


def _memory(program: Path) -> str:
    tracemalloc.start(FRAMES)
    ended = threading.Event()
    watch = _Watch(ended)
    watch.start()
    try:
        _run(program)
    finally:
        ended.set()
        watch.join()
    statistics = watch.snapshot.statistics('lineno')
    traces = watch.snapshot.statistics('traceback')[:10]
    return (f'<p>{watch.held / 1e6:.1f} MB of Python\'s allocations were held when it was most.</p>'
            + _table(('held [kB]', 'blocks', 'line'), [
                (f'{row.size / 1e3:.1f}', str(row.count), str(row.traceback[0])) for row in statistics[:ROWS]])
            + ''.join(f'<h2>{trace.size / 1e3:.1f} kB</h2><pre>{html.escape(chr(10).join(trace.traceback.format()))}'
                      '</pre>' for trace in traces))


class _Watch(threading.Thread):
    """Keeps the snapshot of the moment in which most memory was held."""

    def __init__(self, ended: threading.Event) -> None:
        super().__init__(name='memory watch', daemon=True)
        self._ended = ended
        self.held = 0  # [bytes]
        self.snapshot = tracemalloc.take_snapshot()

    def run(self) -> None:
        """Look now and then, and once at the end."""
        while True:
            last = self._ended.wait(SNAPSHOT_S)
            held = tracemalloc.get_traced_memory()[0]
            if held > self.held:
                self.held, self.snapshot = held, tracemalloc.take_snapshot()
            if last:
                return


def _lines(program: Path) -> str:
    try:
        from line_profiler import LineProfiler
    except ImportError:
        raise SystemExit('line_profiler is not installed; `./moe exec pip install line_profiler` adds it.') from None
    profiler = LineProfiler()
    entry = next(one for one in entry_points(group='console_scripts') if one.name == program.name)
    package = importlib.import_module(entry.module.partition('.')[0])
    for module in _modules(package):
        profiler.add_module(module, wrap=True)
    try:
        entry.load()()
    except SystemExit as end:
        if end.code not in (None, 0):
            print(end.code, file=sys.stderr, flush=True)
    text = io.StringIO()
    profiler.print_stats(stream=text, stripzeros=True, sort=True, summarize=True)
    return f'<pre>{html.escape(text.getvalue())}</pre>'


def _modules(package: ModuleType) -> list[ModuleType]:
    """Every module of a package that can be imported here; optional devices and engines may not be."""
    found = [package]
    for info in pkgutil.walk_packages(package.__path__, f'{package.__name__}.', onerror=lambda _name: None):
        if info.name.endswith('__main__'):
            continue
        try:
            found.append(importlib.import_module(info.name))
        except ImportError:
            continue
    return found


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = ''.join(f'<th>{html.escape(column)}</th>' for column in columns)
    lines = ''.join('<tr>' + ''.join(
        f'<td{"" if column == len(columns) - 1 else " class=n"}>{html.escape(cell)}</td>'
        for column, cell in enumerate(row)) + '</tr>' for row in rows)
    return f'<table><tr>{head}</tr>{lines}</table>'


if __name__ == '__main__':
    sys.exit(main())
