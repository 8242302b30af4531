"""What the tests of the expert node share: how it is asked, and what it says of itself."""

import itertools

from moe_interfaces.action import GenerateResponse
from moe_interfaces.msg import SamplingConfig, ServingStatus

ACTION = 'experts/generate_response'
LONG = 6000  # tokens: longer than any test waits
SEEDS = itertools.count()


def greedy():
    return SamplingConfig(temp=0.0, ignore_eos=True)


def ask(graph, prompt='what is the capital of France', expert='general', **options):
    # a seed of its own keeps the answer cache out of tests that are not about it
    own = SamplingConfig(temp=0.0, ignore_eos=True, seed=next(SEEDS))
    options = {'sampling_config': own, 'max_tokens': 12, **options}
    return graph.ask(GenerateResponse, ACTION, prompt=prompt, expert=expert, **options)


def status(graph, accept):
    """Wait for a status that is accepted."""
    return graph.message(ServingStatus, 'experts/status', accept)


def loaded(message):
    """Names of the experts that a status tells of."""
    return sorted(one.expert for one in message.experts)


def versions(message, expert):
    """Versions of an expert that a status tells of, each with whether it is pinned."""
    return [(one.version, one.pinned) for one in message.experts if one.expert == expert]
