"""A request as it crosses the pipe between node and worker: JSON in between, the same request on both sides."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from moe_experts.engines.engine import Part, Request, Sampling

LEAST_S = 1e-3  # of a deadline that has passed already: 0 would mean none


def fields_of(request: Request) -> dict[str, Any]:
    """A request's fields; the deadline becomes seconds left, which hold for another clock, too."""
    fields = asdict(request)
    deadline = fields.pop('deadline')
    return {**fields, 'timeout_s': max(LEAST_S, deadline - time.monotonic()) if deadline else 0.0}


def request_of(fields: dict[str, Any]) -> Request:
    """The request of such fields."""
    rest = dict(fields)
    left, sampling, mixture = rest.pop('timeout_s'), rest.pop('sampling'), rest.pop('mixture')
    return Request(**{
        **rest, 'messages': pairs(rest['messages']), 'stop': tuple(rest['stop']),
        'mixture': tuple(Part(**{**part, 'messages': pairs(part['messages'])}) for part in mixture),
        'sampling': Sampling(**{**sampling, 'logit_bias': pairs(sampling['logit_bias'])}),
        'deadline': time.monotonic() + left if left else 0.0})


def pairs(rows: list[list[Any]]) -> Any:
    """Pairs as they were before JSON made lists of them."""
    return tuple(map(tuple, rows))
