"""Between the core's types and messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moe_interfaces.msg import Note as NoteMessage
from moe_interfaces.msg import RouteDecision
from moe_router.notes import Note
from moe_router.policy import Decision


def decision_message(decision: Decision, latency_s: float) -> RouteDecision:
    """A decision and the seconds that it took."""
    return RouteDecision(
        choice=decision.choice, confidence=decision.confidence, ranked=list(decision.ranked),
        probabilities=list(decision.probabilities), none_probability=decision.none_probability,
        abstained=decision.abstained, stage=decision.stage, latency_s=latency_s)


def note_messages(notes: Sequence[Note]) -> list[NoteMessage]:
    """Notes with their scores, as a result names its sources."""
    return [NoteMessage(id=note.id, expert=note.expert, source=note.source, text=note.text, score=note.score,
                        questions=list(note.questions))
            for note in notes]


def question(goal: Any) -> str:
    """What a goal of either generation action asks: the prompt, or the last message."""
    return str(goal.prompt if hasattr(goal, 'prompt') else goal.messages[-1].content if goal.messages else '')


def bind(goal: Any, grammar: str) -> None:
    """Bind a goal's answer to a grammar, unless the caller bound it otherwise."""
    sampling = goal.sampling_config
    if not (sampling.grammar or sampling.json_schema or sampling.regex):
        sampling.grammar = grammar


def put_before(goal: Any, text: str) -> None:
    """Put a block of text in front of what a goal asks."""
    if hasattr(goal, 'prompt'):
        goal.prompt = f'{text}\n\n{goal.prompt}'
    elif goal.messages:
        goal.messages[-1].content = f'{text}\n\n{goal.messages[-1].content}'
