"""The node's parameters: declared once, with description, range and default."""

from __future__ import annotations

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from moe_router import mixture
from moe_router.router import STRATEGIES

_CHOICES = {'router.strategy': STRATEGIES, 'mixture': mixture.KINDS}


def declare(node: Node) -> None:
    """Declare everything; raises ValueError where a configured value is none of the choices."""
    def text(name: str, default: str, description: str, fixed: bool = False) -> None:
        node.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=fixed))

    def number(name: str, default: float, least: float, most: float, description: str, fixed: bool = False) -> None:
        node.declare_parameter(name, default, ParameterDescriptor(
            description=description, read_only=fixed,
            floating_point_range=[FloatingPointRange(from_value=least, to_value=most, step=0.0)]))

    def count(name: str, default: int, least: int, most: int, description: str) -> None:
        node.declare_parameter(name, default, ParameterDescriptor(
            description=description, integer_range=[IntegerRange(from_value=least, to_value=most, step=1)]))

    def flag(name: str, default: bool, description: str) -> None:
        node.declare_parameter(name, default, ParameterDescriptor(description=description))

    def names(name: str, default: list[str], description: str, fixed: bool = False) -> None:
        node.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=fixed))

    text('router.strategy', 'learned', 'how an expert is chosen: "learned", "rule_based", "hierarchical" or "llm"')
    number('confidence_threshold', 0.5, 0.0, 1.0, 'confidence below it abstains')
    number('margin', 0.0, 0.0, 1.0, 'lead over the next expert below which the router abstains')
    text('fallback_expert', 'general', 'answers what is out of every domain')
    text('llm_expert', '', 'expert that chooses with strategy "llm"; "" = the fallback expert')
    text('routes_file', '', 'YAML file with rules and samples, see docs/router.md; "" = none', fixed=True)
    count('mixture_k', 1, 1, 8, 'most experts that are asked one question')
    text('mixture', 'best', 'of several answers: "best", "concat" (all, signed) or "logits" (mixed token by token)')
    names('expert_nodes', ['experts'], 'prefixes of the expert nodes\' endpoints; several may serve the same experts',
          fixed=True)
    number('expert_wait_s', 8.0, 0.0, 600.0, 'how long to wait for an expert node that is starting [s]')
    number('cool_down_s', 5.0, 0.0, 600.0, 'how long an expert node that failed is left alone [s]', fixed=True)
    number('silence_s', 5.0, 1.0, 600.0, 'without status and stream for so long, a node counts as gone [s]')
    names('ground_experts', [''], 'experts whose prompts always get the robot\'s state; [""] = none')
    number('max_age_s', 2.0, 0.0, 3600.0, 'age above which a value of the robot\'s state is named stale [s]')
    count('notes_most', 3, 0, 20, 'most notes that are put into a prompt')
    count('notes_bytes', 1200, 0, 100_000, 'bytes that notes may take in a prompt')
    number('notes_margin', 0.1, 0.0, 2.0, 'notes within so much of the nearest one\'s cosine count as about as near')
    number('notes_sure', 0.65, 0.0, 2.0,
           'score from which a note that was found by its questions is said word for word; 2 = never')
    flag('keep_prompts', False, 'keep the text of prompts with the recorded decisions; otherwise their digest alone')
    number('gate_margin', 0.05, 0.0, 1.0, 'loss of accuracy in one domain for which a new fit is refused')
    flag('act', True, 'carry out the answers of action_experts')
    names('action_experts', ['motion'], 'experts whose answers are motion commands')
    wrong = refusal([node.get_parameter(name) for name in _CHOICES])
    if not wrong.successful:
        raise ValueError(wrong.reason)


def refusal(parameters: list[Parameter]) -> SetParametersResult:
    """Whether values may be set."""
    for parameter in parameters:
        choices = _CHOICES.get(parameter.name)
        if choices is not None and parameter.value not in choices:
            return SetParametersResult(successful=False, reason=f'{parameter.name} is "{parameter.value}"; it must be '
                                                                f'one of {", ".join(choices)}.')
    return SetParametersResult(successful=True)
