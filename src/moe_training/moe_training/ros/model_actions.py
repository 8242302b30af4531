"""The actions convert_model and quantize_model; the work is done in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from moe_interfaces.action import ConvertModel, QuantizeModel
from moe_interfaces.msg import ExpertVersion
from moe_training.command import ask
from moe_training.errors import TrainingError
from moe_training.job import Job
from moe_training.paths import job_folder, moe_home
from moe_training.ros.goals import within
from moe_training.ros.registry import SERVICE_QOS, Registry, metrics_of


class ModelActions:
    """Serves the two actions.

    Args:
        roots: folders that files may be in.
        closing: set when the node stops; what runs is ended.
    """

    def __init__(self, node: Node, registry: Registry, roots: Callable[[], list[str]], closing: threading.Event,
                 ) -> None:
        self._registry, self._roots, self._closing = registry, roots, closing
        self._turn = threading.Lock()  # a conversion takes the memory of a model; two at once might not fit
        group = ReentrantCallbackGroup()
        self._servers = [
            ActionServer(node, interface, node.resolve_service_name(name),  # Jazzy remaps no topics of an action
                         self._executed(interface, work), callback_group=group,
                         cancel_callback=lambda _goal: CancelResponse.ACCEPT, goal_service_qos_profile=SERVICE_QOS,
                         result_service_qos_profile=SERVICE_QOS)
            for interface, name, work in ((ConvertModel, 'convert_model', self._convert),
                                          (QuantizeModel, 'quantize_model', self._quantise))]

    def _executed(self, interface: Any, work: Callable[[ServerGoalHandle, Any], None]) -> Callable[[Any], Any]:
        def execute(handle: ServerGoalHandle) -> Any:
            result = interface.Result()
            try:
                with self._turn:
                    work(handle, result)
            except TrainingError as error:
                result.error_code, result.error_msg = error.code, str(error)
            if not result.error_code:
                handle.succeed()
            elif handle.is_cancel_requested:
                handle.canceled()
            else:
                handle.abort()
            return result
        return execute

    def _ask(self, handle: ServerGoalHandle, feedback: Any, kind: str, **arguments: Any) -> dict[str, Any]:
        return ask(kind, hear=lambda phase, progress: handle.publish_feedback(
            feedback(phase=phase, progress=progress)),
            cancelled=lambda: handle.is_cancel_requested or self._closing.is_set(), **arguments)

    def _convert(self, handle: ServerGoalHandle, result: Any) -> None:
        goal = handle.request
        for path in filter(None, (goal.source, goal.destination, goal.base)):
            within(path, self._roots())
        done = self._ask(handle, ConvertModel.Feedback, 'convert', source=goal.source, destination=goal.destination,
                         quantization=goal.quantization, base=goal.base, parity_check=goal.parity_check)
        result.path, result.sha256, result.size_bytes = done['path'], done['sha256'], done['size_bytes']
        result.quantization, result.metrics = done['quantization'], metrics_of(done['metrics'])

    def _quantise(self, handle: ServerGoalHandle, result: Any) -> None:
        goal = handle.request
        expert = self._registry.expert(goal.expert)
        version = self._registry.version(goal.expert, goal.version)
        finest, heldout = _of_job(version)
        done = self._ask(
            handle, QuantizeModel.Feedback, 'quantise', artifact=version.artifact_path, finest=finest,
            base=version.base_path, base_name=version.base,
            folder=str(moe_home() / 'training' / f'quantised-{version.id}'), quantization=goal.quantization,
            max_perplexity_ratio=goal.max_perplexity_ratio, heldout=heldout, system_prompt=expert.system_prompt)
        made = self._registry.register(expert.name, ExpertVersion(
            artifact_path=done['artifact_path'], kind=version.kind, base=version.base, base_path=done['base_path'],
            base_sha256=done['base_sha256'], lora_scale=version.lora_scale, parent_version=version.number,
            dataset_digest=version.dataset_digest, job_id=version.job_id, metrics=metrics_of(done['metrics'])),
            goal.promote, f'version {version.number} as {done["quantization"]}')
        result.version_id, result.version = made.id, made.number
        result.quantization, result.metrics = done['quantization'], metrics_of(done['metrics'])


def _of_job(version: ExpertVersion) -> tuple[str, str]:
    """F16 file and held-out dataset of the job that made a version; '' where they are not there (any more)."""
    folder = job_folder(version.job_id)
    try:
        job = Job.load(folder)
    except TrainingError:
        return '', ''
    half = folder / f'{job.expert}-f16.gguf'
    heldout = job.heldout or job.dataset
    return (str(half) if half.is_file() and not version.base_path else '',
            heldout if Path(heldout).is_file() else '')
