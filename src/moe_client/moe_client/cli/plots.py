"""Charts: in a terminal, nothing in a pipe; and the speed of an expert as a PNG."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from moe_client.cli.output import console, shown

WIDTH, HEIGHT = 80, 14  # characters
_STEP = re.compile(r'Step (\d+): Loss=([0-9.]+)(?: Validation=([0-9.]+))?')
Curve = tuple[Sequence[float], Sequence[float]]


def curves(title: str, shown: Mapping[str, Curve], x_label: str) -> None:
    """Draw lines by their names, each of x and y; without a point nothing is drawn."""
    drawn = {name: curve for name, curve in shown.items() if curve[0]}
    if not console.is_terminal or not drawn:
        return
    import plotext

    plotext.clear_figure()
    for name, (x, y) in drawn.items():
        plotext.plot(list(x), list(y), label=name, marker='braille')
    plotext.xlabel(x_label)
    _print(plotext, title)


def histogram(title: str, counts: Sequence[int], edges: Sequence[float]) -> None:
    """Draw how often values between two edges are."""
    if not console.is_terminal or not any(counts):
        return
    import plotext

    plotext.clear_figure()
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    plotext.bar(middles, list(counts), width=edges[1] - edges[0])
    ticks = [edges[0], edges[len(edges) // 2], edges[-1]]
    plotext.xticks(ticks, [shown(float(tick)) for tick in ticks])
    _print(plotext, title)


def _print(plotext: Any, title: str) -> None:
    plotext.title(title)
    plotext.theme('clear')
    plotext.plot_size(min(WIDTH, console.width), HEIGHT)
    text = plotext.build()
    print(plotext.uncolorize(text) if console.no_color else text)


def losses(log: Path) -> dict[str, Curve]:
    """Loss and validation loss by step from a training job's log; a step that was done again counts once."""
    loss: dict[int, float] = {}
    validation: dict[int, float] = {}
    try:
        for step, of_step, of_heldout in _STEP.findall(log.read_text(errors='replace')):
            loss[int(step)] = float(of_step)
            if of_heldout:
                validation[int(step)] = float(of_heldout)
    except OSError:  # the job runs on another machine
        pass
    return {name: (sorted(found), [found[step] for step in sorted(found)])
            for name, found in (('loss', loss), ('validation loss', validation))}


def speeds(loads: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Tokens per second by callers at once, of a benchmark's report."""
    return {'tokens/s': ([load['streams'] for load in loads], [load['tokens_per_s'] for load in loads])}


def write_speeds(report: Mapping[str, Any], target: Path) -> None:
    """Draw a benchmark's report as a PNG: tokens/s, and the first token at its percentiles, by callers at once."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    loads = report['loads']
    streams = [load['streams'] for load in loads]
    figure, (speed, first) = pyplot.subplots(1, 2, figsize=(9, 3.5))
    speed.plot(streams, [load['tokens_per_s'] for load in loads], marker='o')
    speed.set_ylabel('tokens/s of all together')
    for index, share in enumerate((50, 95, 99)):
        first.plot(streams, [load['first_token_s'][index] for load in loads], marker='o', label=f'p{share}')
    first.set_ylabel('first token [s]')
    first.legend()
    for axis in (speed, first):
        axis.set_xlabel('callers at once')
        axis.set_ylim(bottom=0)
    figure.suptitle(f'{report["expert"]}@{report["version"]}')
    figure.tight_layout()
    temporary = target.with_name(f'.{target.name}.part')
    figure.savefig(temporary, format='png')
    temporary.replace(target)
    pyplot.close(figure)
