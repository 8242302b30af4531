"""Whether a new fit may replace the one that serves."""

from __future__ import annotations

import numpy as np

from moe_router.classifier import NONE, Head


def refusal(new: Head, old: Head | None, experts: dict[int, str], margin: float) -> str:
    """Why the new fit must not serve, one sentence; '' = it may.

    Both are compared on the samples that each had held out while it was fitted, domain by domain.

    Args:
        experts: expert of each sample by the 8 bytes that stand in Head.checked.
        margin: loss of accuracy per domain that is borne, 0..1; one sample more or less never counts.
    """
    if old is None:
        return ''
    _shared, ours, theirs = np.intersect1d(new.checked, old.checked, return_indices=True)
    owners = np.array([experts.get(int(key), NONE) for key in new.checked[ours]])
    for name in sorted(set(owners)):
        rows = owners == name
        now, before = new.passed[ours][rows], old.passed[theirs][rows]
        if now.sum() + 1 < before.sum() and now.mean() < before.mean() - margin:
            return (f'The new fit is worse on {name or "what belongs to no expert"}: {now.mean():.1%} right instead of '
                    f'{before.mean():.1%} of {rows.sum()} samples; look at its confusion, or retrain with force.')
    return ''
