"""training_node: turns datasets into served versions of experts, one job after another."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from moe_interfaces.action import TrainExpert
from moe_interfaces.msg import Expert, Metric, TrainingJob
from moe_interfaces.srv import ValidateDataset
from moe_training.dataset import read_dataset
from moe_training.errors import CancelledError, TrainingError
from moe_training.job import Job, Outcome, read_parts
from moe_training.paths import job_folder, job_log
from moe_training.ros import goals
from moe_training.ros.registry import SERVICE_QOS, Registry
from moe_training.ros.spinning import spin
from moe_training.worker import TrainingWorker

THREADS = 12  # every goal, also a queued one, blocks a thread; the registry's replies need free ones
LISTED_PROBLEMS = 100


class TrainingNode(Node):  # type: ignore[misc]
    """Serves train_expert and training/validate_dataset."""

    def __init__(self) -> None:
        super().__init__('training')
        self.declare_parameter('heartbeat_s', 2.0, ParameterDescriptor(
            description='between two writes of a job\'s progress to the registry [s]',
            floating_point_range=[FloatingPointRange(from_value=0.1, to_value=60.0, step=0.0)]))
        self._registry = Registry(self)
        self._turn = threading.Lock()  # one worker at a time: two would halve each other's speed
        self._closing = threading.Event()
        group = ReentrantCallbackGroup()
        self._action = ActionServer(
            self, TrainExpert, 'train_expert', self._execute, callback_group=group,
            cancel_callback=lambda _goal: CancelResponse.ACCEPT, goal_service_qos_profile=SERVICE_QOS,
            result_service_qos_profile=SERVICE_QOS)
        self.create_service(ValidateDataset, 'training/validate_dataset', self._validate, qos_profile=SERVICE_QOS,
                            callback_group=group)
        threading.Thread(target=self._fail_lost_jobs, daemon=True, name='lost jobs').start()

    def close(self) -> None:
        """Cancel what runs and wait for its worker to end."""
        self._closing.set()
        with self._turn:
            return

    def _fail_lost_jobs(self) -> None:
        """Jobs that a former life of this node left behind are named and ended."""
        while not self._closing.is_set():
            try:
                if lost := self._registry.fail_lost_jobs():
                    self.get_logger().warning(f'Training jobs {lost} ended with the node that ran them.')
                return
            except TrainingError:
                self._closing.wait(5.0)  # the registry is still starting

    def _execute(self, handle: ServerGoalHandle) -> TrainExpert.Result:
        result = TrainExpert.Result()
        try:
            self._train(handle, result)
        except TrainingError as error:
            result.error_code, result.error_msg = error.code, str(error)
            self.get_logger().error(f'Training {handle.request.expert}: {error}')
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.error_code:
            handle.abort()
        else:
            handle.succeed()
        return result

    def _train(self, handle: ServerGoalHandle, result: TrainExpert.Result) -> None:
        goal = handle.request
        expert = self._registry.expert(goal.expert)
        job = goals.job_of(goal, expert)
        train, _heldout, digest = read_parts(job)
        row = self._registry.create_job(TrainingJob(
            expert=expert.name, method=goal.method, dataset=job.dataset, dataset_digest=digest,
            config=json.dumps(asdict(job)), host=socket.gethostname(), loss=math.nan, validation_loss=math.nan,
            eta_s=-1.0))
        result.job_id = row.id
        try:
            outcome = self._run(handle, job, row)
            handle.publish_feedback(goals.feedback(row.id, {'phase': 'register', 'memory_bytes': 0}))
            self._register(expert, outcome, row, goal.promote, result)
            self._registry.add_samples(expert.name, train)
        except TrainingError as error:
            row.status = TrainingJob.CANCELLED if isinstance(error, CancelledError) else TrainingJob.FAILED
            row.error_msg = str(error)
            self._registry.update_job(row)
            raise
        row.status, row.version_id, row.pid = TrainingJob.SUCCEEDED, result.version_id, 0
        self._registry.update_job(row)

    def _run(self, handle: ServerGoalHandle, job: Job, row: TrainingJob) -> Outcome:
        """Wait for the turn, then relay the worker; the row's progress is written now and then."""
        stopped = threading.Event()

        def cancelled() -> bool:
            return handle.is_cancel_requested or self._closing.is_set() or stopped.is_set()

        while not self._turn.acquire(timeout=0.2):
            if cancelled():
                raise CancelledError(f'Training job {row.id} was cancelled before its turn.')
        worker = None
        try:
            worker = TrainingWorker(row.id, job, job_folder(row.id), job_log(row.id))
            row.pid, row.status = worker.pid, TrainingJob.RUNNING
            self._registry.update_job(row)
            return self._relay(handle, worker, row, cancelled, stopped)
        except OSError as error:
            raise TrainingError(f'Training job {row.id} cannot write its files: {error}.') from error
        finally:
            if worker is not None:
                worker.close()
            self._turn.release()

    def _relay(self, handle: ServerGoalHandle, worker: TrainingWorker, row: TrainingJob,
               cancelled: Callable[[], bool], stopped: threading.Event) -> Outcome:
        written = time.monotonic()
        lines = worker.progress(cancelled)
        while True:
            try:
                progress = next(lines)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            handle.publish_feedback(goals.feedback(row.id, progress))
            goals.note(row, progress)
            if time.monotonic() - written >= self.get_parameter('heartbeat_s').value:
                written = time.monotonic()
                if self._registry.update_job(row).status not in (TrainingJob.RUNNING, TrainingJob.QUEUED):
                    stopped.set()  # a person marked the job as ended

    def _register(self, expert: Expert, outcome: Outcome, row: TrainingJob, promote: bool,
                  result: TrainExpert.Result) -> None:
        version = self._registry.register(expert.name, outcome, row.id, expert.champion_version, promote)
        result.version_id, result.version = version.id, version.number
        result.artifact_path, result.sha256 = version.artifact_path, version.sha256
        result.metrics = [Metric(name=name, value=float(value)) for name, value in outcome.metrics.items()]
        self.get_logger().info(f'{expert.name}@{version.number} is registered (training job {row.id}).')

    @staticmethod
    def _validate(request: Any, response: Any) -> Any:
        try:
            dataset = read_dataset(Path(request.path))
        except TrainingError as error:
            response.error_code, response.error_msg = error.code, str(error)
            return response
        shown = dataset.problems[:LISTED_PROBLEMS]
        response.rows, response.bad_rows, response.digest = dataset.rows, len(dataset.problems), dataset.digest
        response.lines = [problem.line for problem in shown]
        response.reasons = [problem.reason for problem in shown]
        return response


def main() -> None:
    """Run the node."""
    spin(TrainingNode, THREADS)
