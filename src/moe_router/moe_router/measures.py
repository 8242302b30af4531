"""How good a fit is: accuracy by domain, macro-F1, calibration, what is noticed as out of every domain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FALSE_REJECTS = 0.05  # share of in-domain prompts turned away, at which strangers are counted
_BINS = 15


def calibration_error(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 equal bins (Guo et al., arXiv 1706.04599); 0..1."""
    if not len(confidences):
        return 0.0
    bins = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float(confidences[bins == index].mean() - right[bins == index].mean())) * float((bins == index).mean())
            for index in range(_BINS) if (bins == index).any()]
    return float(sum(gaps))


def recall_of_strangers(known: NDArray[np.float64], strangers: NDArray[np.float64],
                        false_rejects: float = FALSE_REJECTS) -> float:
    """Share of strangers below the value that all but false_rejects of the known exceed; NaN without either."""
    if not len(known) or not len(strangers):
        return float('nan')
    return float((strangers < np.quantile(known, false_rejects)).mean())


def accuracies(truth: NDArray[np.int64], found: NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """Share of right answers of every domain that occurs."""
    return {name: float((found[truth == index] == index).mean())
            for index, name in enumerate(names) if (truth == index).any()}


def macro_f1(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """F1 averaged over the domains that occur."""
    scores = []
    for index in np.unique(truth):
        both = int(((truth == index) & (found == index)).sum())
        scores.append(2 * both / max(1, int((truth == index).sum() + (found == index).sum())))
    return float(np.mean(scores)) if scores else 0.0


def confusion(truth: NDArray[np.int64], found: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Counts (size, size): rows are the truth, columns what was found."""
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (truth, found), 1)
    return counts


def draw_confusion(counts: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Write the confusion of domains as a PNG."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    size = 2.5 + 0.45 * len(names)
    figure, axes = pyplot.subplots(figsize=(size, size))
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap='Blues', vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel='routed to', ylabel='belongs to')
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(column, row, str(counts[row, column]), ha='center', va='center', fontsize=7,
                  color='white' if row == column else 'black')
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
