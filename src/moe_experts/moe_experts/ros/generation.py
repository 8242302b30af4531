"""Goals of the generation actions to requests of the engine, and results back."""

from __future__ import annotations

import time
import uuid
from typing import Any

from rclpy.time import Time

from moe_experts.engines.engine import EngineError, Messages, Part, Probable, Request, Result, Sampling
from moe_experts.pool import FOREVER, Loaded
from moe_interfaces.msg import ChatMessage, Choice, Expert, SamplingConfig, TokenProb, TokenProbArray

MOST_ANSWERS = 8
_SAMPLING = ('temp', 'top_k', 'top_p', 'min_p', 'typical_p', 'penalty_repeat')


def sampling(own: SamplingConfig, asked: SamplingConfig) -> Sampling:
    """The request's settings over the expert's own over the engine's; the sentinels are in SamplingConfig.msg."""
    values: dict[str, Any] = {}
    for config in (own, asked):
        for name in _SAMPLING:
            if getattr(config, name) != -1:  # NaN and other nonsense go on to the engine, which names it
                values[name] = getattr(config, name)
        if config.penalty_last_n != -2:
            values['penalty_last_n'] = config.penalty_last_n
        for name in ('penalty_freq', 'penalty_present'):
            if getattr(config, name):
                values[name] = getattr(config, name)
        if config.seed >= 0:
            values['seed'] = config.seed
        if config.mirostat:
            values.update(mirostat=config.mirostat, mirostat_eta=config.mirostat_eta,
                          mirostat_tau=config.mirostat_tau)
        if config.n_probs:
            values['n_probs'] = config.n_probs
        if config.ignore_eos:
            values['ignore_eos'] = True
        if config.logit_bias:
            values['logit_bias'] = tuple((bias.token, bias.bias) for bias in config.logit_bias)
    return Sampling(**values)


def keep_alive(goal: Any, own: float | None) -> float | None:
    """How long [s] the expert stays loaded after the answer; None = until it is evicted. Raises EngineError.

    `own` is what the node does where the goal does not say.
    """
    if goal.keep_alive == -2.0:
        return own
    if goal.keep_alive == -1.0:
        return FOREVER
    if not goal.keep_alive >= 0.0:
        raise EngineError(f'keep_alive is {goal.keep_alive}; it must be -2, -1 or seconds.')
    return float(goal.keep_alive)


def check(goal: Any) -> None:
    """Raise EngineError (3004) for a goal of either action that can never succeed as it is."""
    if not goal.expert and not goal.experts:
        raise EngineError('The goal names no expert; ask the router, or fill expert.')
    if len(goal.weights) not in (0, len(goal.experts)):
        raise EngineError(f'There are {len(goal.experts)} experts and {len(goal.weights)} weights; give one weight per '
                          'expert, or none.')
    if len(goal.lora_scales) not in (0, 1, len(goal.experts)):
        raise EngineError(f'There are {len(goal.lora_scales)} LoRA scales for {max(1, len(goal.experts))} experts; '
                          'give one for all, one per expert, or none.')
    if goal.truncate not in ('', 'left', 'middle'):
        raise EngineError(f'truncate is "{goal.truncate}"; it must be "", "left" or "middle".')
    if goal.max_tokens < 0:
        raise EngineError(f'max_tokens is {goal.max_tokens}; it must not be negative.')
    if hasattr(goal, 'messages') and not 1 <= goal.n <= MOST_ANSWERS:
        raise EngineError(f'n is {goal.n}; it must be 1..{MOST_ANSWERS}.')
    keep_alive(goal, None)


def request(goal: Any, experts: list[tuple[Loaded, Expert]], now: Time, seed_offset: int = 0) -> Request:
    """A goal of either action as a request to one expert, or to a mixture of several. Raises EngineError (3001, 3004).

    What a mixture's experts say differently (sampling, limits, schema) is the first one's.
    """
    (loaded, expert), *others = experts
    asked = goal.sampling_config
    schema = asked.json_schema or ('' if asked.regex or asked.grammar else expert.output_schema)
    deadline = Time.from_msg(goal.deadline)
    left = (deadline.nanoseconds - now.nanoseconds) / 1e9 if deadline.nanoseconds else 0.0
    if deadline.nanoseconds and left <= 0.0:
        raise EngineError('The deadline had passed when the request arrived.', 3001)
    settings = sampling(expert.sampling_config, asked)
    if seed_offset and settings.seed >= 0:
        settings = Sampling(**{**settings.__dict__, 'seed': settings.seed + seed_offset})
    scales = [float(scale) for scale in goal.lora_scales] or [1.0]
    scales = scales if len(scales) == len(experts) else scales * len(experts)
    parts = tuple(Part(one.adapter, float(weight), _messages(goal, kind), scale) for (one, kind), weight, scale in zip(
        experts, goal.weights or [1.0] * len(experts), scales, strict=True)) if others else ()
    return Request(
        id=uuid.uuid4().hex, messages=_messages(goal, expert), adapter=loaded.adapter, scale=scales[0],
        mixture=parts,
        sampling=settings, max_tokens=goal.max_tokens or expert.max_tokens or 256,
        max_seq_len=expert.max_seq_len or 2048, stop=tuple(goal.stop), json_schema='' if schema == '{}' else schema,
        regex=asked.regex, grammar=asked.grammar, priority=goal.priority or expert.priority,
        deadline=time.monotonic() + left if left else 0.0, truncate=goal.truncate)


def _messages(goal: Any, expert: Expert) -> Messages:
    """The conversation as it is put to an expert. Raises EngineError (3004)."""
    messages = [(message.role, message.content) for message in goal.messages] if hasattr(goal, 'messages') \
        else [('user', goal.prompt)]
    if not messages or not messages[-1][1].strip():
        raise EngineError('The prompt is empty; ask something.')
    if any(role not in ('system', 'user', 'assistant', 'tool') for role, _content in messages):
        raise EngineError('A message\'s role must be system, user, assistant or tool.')
    system = goal.system_prompt or expert.system_prompt
    if system and messages[0][0] != 'system':
        messages.insert(0, ('system', system))
    return tuple(messages)


def probabilities(token: int, rows: tuple[Probable, ...]) -> TokenProbArray:
    """The most probable tokens at one position."""
    return TokenProbArray(chosen_token=token, data=[
        TokenProb(token=int(one), probability=float(value), token_text=text) for one, value, text in rows])


def event(result: Any) -> str:
    """One line about an answer for the log; no word of prompt or answer."""
    line = (f'Answered: request_id={result.request_id} expert={result.expert} version={result.expert_version} '
            f'{result.finish_reason}, {result.usage.completion_tokens} tokens')
    line += ' from memory' if result.cached else (
        f', first after {1e3 * result.timings.first_token_s:.0f} ms, all after {1e3 * result.timings.total_s:.0f} ms')
    return f'{line}, error {result.error_code}: {result.error_msg}' if result.error_code else line


def fill(result: Any, found: Result, goal: Any, expert: Expert, version: int, cached: bool) -> Any:
    """Put an engine's result into an action's."""
    if hasattr(result, 'response'):
        result.response.text, result.response.tokens = found.text, list(found.tokens)
        result.response.probs = [probabilities(token, rows) for token, rows in zip(
            found.tokens, found.probs, strict=False)]
    else:
        result.id = f'chatcmpl-{goal.request_id}'
        result.created, result.model = int(time.time()), f'{expert.name}@{version}'
        result.choices.append(Choice(
            index=len(result.choices), message=ChatMessage(role='assistant', content=found.text),
            finish_reason=found.finish_reason))
    result.finish_reason = result.finish_reason or found.finish_reason
    result.cached = cached
    usage, timings = result.usage, result.timings
    usage.prompt_tokens = found.prompt_tokens
    usage.completion_tokens += len(found.tokens)
    usage.cached_tokens = found.cached_tokens
    usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
    for name in ('queue_s', 'prefill_s', 'first_token_s', 'decode_s', 'total_s'):
        setattr(timings, name, float(getattr(found, name)))
    # an answer whose tokens come all at once, forced by its grammar or guessed, has no rate
    timings.tokens_per_second = (len(found.tokens) - 1) / found.decode_s if found.decode_s else 0.0
    result.expert, result.expert_version, result.request_id = expert.name, version, goal.request_id
    result.route.choice, result.route.confidence, result.route.stage = expert.name, 1.0, 'named'
    result.retry_after = found.retry_after_s
    if not result.error_code:
        result.error_code, result.error_msg = found.error_code, found.error_msg
    return result
