"""The SDK: `with Client() as client: print(client.inference.generate('How do I list topics?').text)`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

from sensor_msgs.msg import Image, Imu, JointState
from std_srvs.srv import Trigger

from moe_client.errors import raise_for
from moe_client.ros import conversions
from moe_client.ros.graph import Graph
from moe_client.types import Chunk, ExpertInfo, Generation, Route, TrainingProgress
from moe_interfaces.action import ExecuteMotion, GenerateResponse, TrainExpert
from moe_interfaces.msg import Expert, SamplingConfig
from moe_interfaces.srv import CreateExpert, GetExpert, ListExperts, RoutePrompt

_SENSOR_TYPES = {'image_raw': Image, 'imu/data': Imu, 'joint_states': JointState}


class Experts:
    """Experts and their versions, in the registry."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def list(self, domain: str = '', status: str = '', sort: str = 'id') -> list[ExpertInfo]:
        """List experts, filtered and sorted."""
        request = ListExperts.Request(domain=domain, status=status, sort=sort, limit=1000)
        response = self._graph.call(ListExperts, 'registry/list_experts', request, again=True)
        raise_for(response.error_code, response.error_msg)
        return [conversions.expert(row) for row in response.experts]

    def get(self, id_or_name: int | str) -> ExpertInfo:
        """Get one expert with its versions; raises ExpertNotFound."""
        number = int(id_or_name) if str(id_or_name).isdigit() else 0
        request = GetExpert.Request(id=number, name='' if number else str(id_or_name))
        response = self._graph.call(GetExpert, 'registry/get_expert', request, again=True)
        raise_for(response.error_code, response.error_msg)
        return conversions.expert(response.expert, response.versions)

    def create(self, name: str, domain: str, description: str = '', system_prompt: str = '',
               max_tokens: int = 96) -> ExpertInfo:
        """Create an expert without a version; it answers once it is trained. Raises NameTaken."""
        request = CreateExpert.Request(actor='client', expert=Expert(
            name=name, domain=domain, category=domain, description=description,
            system_prompt=system_prompt or f'You answer questions about {domain} briefly.', max_tokens=max_tokens,
            sampling_config=SamplingConfig(temp=0.0)))
        response = self._graph.call(CreateExpert, 'registry/create_expert', request)
        raise_for(response.error_code, response.error_msg)
        return conversions.expert(response.expert)


class Inference:
    """Questions and answers, by way of the router."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def generate_stream(
            self, prompt: str, *, expert: str = '', session: str = '', temperature: float = -1.0,
            top_p: float = -1.0, top_k: int = -1, max_tokens: int = 0, stop: tuple[str, ...] = (),
            json_schema: str = '', seed: int = -1, timeout: float = 120.0) -> Iterator[Chunk | Generation]:
        """Ask and stream: yields chunks and at the end the whole Generation; closing it cancels the request.

        Negative sampling values and 0 max_tokens mean the expert's own; timeout is in seconds.
        """
        goal = GenerateResponse.Goal(
            prompt=prompt, expert=expert, session=session, max_tokens=max_tokens, stop=list(stop),
            request_id=uuid.uuid4().hex[:16],
            sampling_config=SamplingConfig(temp=float(temperature), top_p=float(top_p), top_k=top_k, seed=seed,
                                           json_schema=json_schema))
        streamed, last = '', Chunk('', '', 0, 0.0, False)
        for kind, message in self._graph.stream(GenerateResponse, 'generate_response', goal, timeout):
            if kind == 'feedback':
                last = conversions.chunk(message)
                streamed += last.text
                yield last
                continue
            raise_for(message.error_code, message.error_msg, message.retry_after)
            answer = conversions.generation(message)
            # the result comes on another channel and may overtake the end of the stream
            if rest := answer.text.removeprefix(streamed):
                yield replace(last, text=rest, expert=answer.expert, expert_version=answer.expert_version)
            yield answer

    def generate(self, prompt: str, **options: object) -> Generation:
        """Ask and wait for the whole answer; options as generate_stream."""
        answer: Generation | None = None
        for item in self.generate_stream(prompt, **options):  # type: ignore[arg-type]
            if isinstance(item, Generation):
                answer = item
        assert answer is not None  # the stream ends with a Generation or raises
        return answer


class Router:
    """Routing without an answer."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def route(self, prompt: str) -> Route:
        """Ask which expert should answer."""
        response = self._graph.call(RoutePrompt, 'route_prompt', RoutePrompt.Request(prompt=prompt), again=True)
        raise_for(response.error_code, response.error_msg)
        return conversions.route(response.decision)


class Training:
    """Training jobs."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def train(self, expert: str, dataset: str, *, epochs: float = 3.0, max_steps: int = 0, batch_size: int = 8,
              learning_rate: float = 0.0, lora_rank: int = 8, seed: int = 42, heldout: str = '', promote: bool = True,
              timeout: float = 24 * 3600.0) -> Iterator[TrainingProgress]:
        """Train a new version; yields progress, at the end phase "done". Closing the iterator cancels the job."""
        goal = TrainExpert.Goal(
            expert=expert, dataset=dataset, epochs=float(epochs), max_steps=max_steps, batch_size=batch_size,
            learning_rate=float(learning_rate), lora_rank=lora_rank, lora_alpha=2.0 * lora_rank, seed=seed,
            heldout=heldout, promote=promote)
        for kind, message in self._graph.stream(TrainExpert, 'train_expert', goal, timeout):
            if kind == 'feedback':
                yield TrainingProgress(message.phase, message.step, message.total_steps, message.loss,
                                       message.tokens_per_second, message.eta_s)
            else:
                raise_for(message.error_code, message.error_msg)
                yield TrainingProgress('done', 0, 0, float('nan'), 0.0, 0.0, message.version, message.artifact_path,
                                       {metric.name: metric.value for metric in message.metrics})


class Robot:
    """Joints and motion."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def joints(self) -> dict[str, float]:
        """Present joint positions [rad]."""
        message = self._graph.latest(JointState, 'joint_states')
        return dict(zip(message.name, message.position))

    def rates(self, topics: tuple[str, ...], seconds: float) -> dict[str, float]:
        """Measured rate of sensor topics [Hz]; keys of _SENSOR_TYPES."""
        return self._graph.rates({name: _SENSOR_TYPES[name] for name in topics}, seconds)

    def execute(self, command: str, timeout: float = 30.0) -> dict[str, float]:
        """Carry out a motion command (JSON, degrees); returns the positions reached [rad]."""
        positions: dict[str, float] = {}
        for kind, message in self._graph.stream(ExecuteMotion, 'execute_motion',
                                                ExecuteMotion.Goal(command=command), timeout):
            if kind == 'result':
                raise_for(message.error_code, message.error_msg)
                positions = dict(zip(message.joint_names, message.positions))
        return positions

    def estop(self) -> str:
        """Stop every servo at once; latched until reset_estop()."""
        return self._trigger('estop')

    def reset_estop(self) -> str:
        """Allow motion again."""
        return self._trigger('reset_estop')

    def _trigger(self, name: str) -> str:
        response = self._graph.call(Trigger, name, Trigger.Request(), timeout_s=3.0)
        raise_for(0 if response.success else 4000, response.message)
        return str(response.message)


class Client:
    """Every way into the suite.

    Args:
        namespace: of the suite on the ROS graph.
    """

    def __init__(self, namespace: str = 'moe') -> None:
        self.graph = Graph(namespace)
        self.experts = Experts(self.graph)
        self.inference = Inference(self.graph)
        self.router = Router(self.graph)
        self.training = Training(self.graph)
        self.robot = Robot(self.graph)

    def close(self) -> None:
        """Leave the graph."""
        self.graph.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        self.close()
