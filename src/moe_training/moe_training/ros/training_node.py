"""training_node: turns datasets into served versions of experts, one job after another."""

from __future__ import annotations

import json
import math
import socket
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node

from moe_interfaces.action import TrainExpert
from moe_interfaces.msg import Expert, TrainingJob
from moe_training.checkpoints import CheckpointStore
from moe_training.command import ask
from moe_training.dataset import Problem, Validation
from moe_training.errors import TrainingError
from moe_training.job import Champion, Job
from moe_training.paths import job_folder
from moe_training.ros import goals
from moe_training.ros.dataset_services import DatasetServices
from moe_training.ros.diagnostics import diagnose
from moe_training.ros.job_queue import POLL_S, Entry, JobQueue
from moe_training.ros.job_runner import JobRunner
from moe_training.ros.model_actions import ModelActions
from moe_training.ros.registry import SERVICE_QOS, Registry
from moe_training.ros.spinning import spin
from moe_training.settings import Upkeep

THREADS = 12  # a running job and a conversion block one each; the registry's replies need free ones
RETRY_S = 5.0
_FLOATS = (
    ('heartbeat_s', 2.0, 'between two writes of a job\'s progress to the registry [s]', 0.1, 60.0),
    ('stuck_timeout_s', 900.0, 'without a sign of life after which a job\'s processes are killed [s]', 1.0, 86400.0))
_INTEGERS = (
    ('max_concurrent', 1, 'jobs at once; two would halve each other\'s speed', 1, 16),
    ('processes', 1, 'that share the steps of a job, started by torchrun', 1, 64),
    ('max_memory_mb', 0, 'limit of a worker\'s memory [MB]; 0 = none', 0, 1_000_000),
    ('checkpoint_steps', 100, 'steps between checkpoints, beside one an epoch', 1, 1_000_000),
    ('keep_last', 2, 'checkpoints between epochs that are kept', 1, 1000),
    ('nan_skips', 3, 'steps in a row without a number that are skipped before a job rolls back', 0, 1000),
    ('nan_rollbacks', 2, 'returns to the last checkpoint, each with half the rate, before a job fails', 0, 100),
    ('evaluation_rows', 64, 'held-out rows whose loss is taken each epoch', 1, 100_000))


class TrainingNode(Node):  # type: ignore[misc]
    """Serves train_expert, convert_model, quantize_model and training/*_dataset."""

    def __init__(self) -> None:
        super().__init__('training', enable_logger_service=True)
        for name, value, text, low, high in _FLOATS:
            self.declare_parameter(name, value, ParameterDescriptor(description=text, floating_point_range=[
                FloatingPointRange(from_value=low, to_value=high, step=0.0)]))
        for name, number, text, least, most in _INTEGERS:
            self.declare_parameter(name, number, ParameterDescriptor(
                description=text, read_only=name == 'max_concurrent',
                integer_range=[IntegerRange(from_value=least, to_value=most, step=1)]))
        self.declare_parameter('resume_lost_workers', False, ParameterDescriptor(
            description='start a worker that was killed again from its last checkpoint; otherwise the job fails'))
        self.declare_parameter('allowed_roots', ['/'], ParameterDescriptor(
            description='folders that datasets, bases and written files may be in; a folder may be a link'))
        self._registry = Registry(self)
        self._runner = JobRunner(
            self._registry, lambda: self._value('heartbeat_s'), lambda: self._value('stuck_timeout_s'),
            lambda: self._value('resume_lost_workers'), self._say)
        self._queue = JobQueue(self._value('max_concurrent'), self._runner.run, self._runner.drop)
        self._models = ModelActions(self, self._registry, self._roots, self._runner.closing)
        self._datasets = DatasetServices(self, self._roots)
        self._action = ActionServer(
            self, TrainExpert, self.resolve_service_name('train_expert'),  # Jazzy remaps no topics of an action
            lambda _handle: TrainExpert.Result(), handle_accepted_callback=self._accepted,
            callback_group=ReentrantCallbackGroup(), cancel_callback=lambda _goal: CancelResponse.ACCEPT,
            goal_service_qos_profile=SERVICE_QOS, result_service_qos_profile=SERVICE_QOS)
        self._earlier_taken = threading.Event()
        self._diagnostics = diagnose(self, 'jobs', self._diagnose, MutuallyExclusiveCallbackGroup())
        threading.Thread(target=self._take_up, daemon=True, name='earlier jobs').start()

    def close(self) -> None:
        """Stop what runs after a checkpoint; it and what waits go on when the node is started again."""
        self._runner.closing.set()
        for entry in self._queue.close():
            entry.fail(TrainingError(f'The training node was stopped; job {entry.row.id} keeps its place in the '
                                     'queue.'))
            entry.execute()

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _roots(self) -> list[str]:
        return list(self._value('allowed_roots'))

    def _say(self, warning: bool, text: str) -> None:
        logger = self.get_logger()
        if warning:
            logger.warning(text)
        else:
            logger.info(text)

    def _take_up(self) -> None:
        """Queue the jobs that a former life of this node left: adopted, gone on with, or ended by name."""
        taken: set[int] = set()
        while not self._runner.closing.is_set():
            try:
                for row in self._registry.unfinished_jobs():
                    if row.id not in taken:
                        self._take_up_one(row)
                        taken.add(row.id)
                self._earlier_taken.set()
                return
            except TrainingError as error:
                self._say(True, f'Earlier jobs are looked for again in {RETRY_S:.0f} s: {error}')
                self._runner.closing.wait(RETRY_S)

    def _take_up_one(self, row: TrainingJob) -> None:
        try:
            if not self._runner.may_go_on(row):
                raise TrainingError('The job ended with the node that ran it, before its first checkpoint; start it '
                                    'anew.')
            content = json.loads(row.config)
            promote = content.pop('promote', False)
            self._queue.add(Entry(row, Job.parse(json.dumps(content)), promote))
            self._say(False, f'Training job {row.id} of {row.expert} is taken up again.')
        except (TrainingError, ValueError) as error:
            self._say(True, f'Training job {row.id} of {row.expert}: {error}')
            row.status, row.error_msg, row.pid = TrainingJob.FAILED, str(error), 0
            self._registry.update_job(row)

    def _diagnose(self) -> tuple[bytes, str, dict[str, str]]:
        running, waiting = self._queue.rows()
        values = {'running': ' '.join(str(row.id) for row in running),
                  'waiting': ' '.join(str(row.id) for row in waiting)}
        for row in running:
            values[f'job {row.id}'] = f'{row.expert}, step {row.step} of {row.total_steps}, pid {row.pid}'
        if not self._earlier_taken.is_set():
            return DiagnosticStatus.WARN, 'Waiting for the registry, which knows the jobs of before.', values
        return DiagnosticStatus.OK, f'{len(running)} jobs run, {len(waiting)} wait.', values

    def _accepted(self, handle: ServerGoalHandle) -> None:
        threading.Thread(target=self._admit, args=(handle,), daemon=True, name='new job').start()

    def _admit(self, handle: ServerGoalHandle) -> None:
        """Check a goal and queue it; whatever can be known before anything starts is refused here."""
        goal = handle.request
        entry = Entry(TrainingJob(), Job('', ''), goal.promote, handle)
        try:
            expert, size = self._registry.expert_to_train(goal.expert)
            goal.base = goal.base or size
            job, digest = self._job(goal, expert)
            entry.job = job
            self._wait_for_the_earlier()
            entry.row = self._registry.create_job(TrainingJob(
                expert=expert.name, method=goal.method, dataset=job.dataset, dataset_digest=digest,
                config=json.dumps({**asdict(job), 'promote': goal.promote}), host=socket.gethostname(),
                loss=math.nan, validation_loss=math.nan, eta_s=-1.0))
            entry.result.job_id = entry.row.id
        except TrainingError as error:
            self._say(True, f'Training {goal.expert}: {error}')
            entry.fail(error)
            entry.execute()
            return
        self._queue.add(entry)

    def _wait_for_the_earlier(self) -> None:
        """Let jobs of a former life go first; a row that is made meanwhile would be taken for one of them."""
        while not self._earlier_taken.wait(POLL_S):
            if self._runner.closing.is_set():
                raise TrainingError('The training node is stopping; ask again when it has started.')

    def _job(self, goal: TrainExpert.Goal, expert: Expert) -> tuple[Job, str]:
        upkeep = Upkeep(**{name: self._value(name) for name in Upkeep.__dataclass_fields__})
        champion = Champion()
        if goal.gate and expert.champion_version:
            version = self._registry.version(expert.name)
            champion = Champion(version.artifact_path, version.base_path)
        job = goals.job_of(goal, expert, upkeep, self._roots(), champion, processes=self._value('processes'),
                           memory_bytes=self._value('max_memory_mb') * 1_000_000)
        digests = []
        for path in filter(None, (job.dataset, job.heldout)):
            found = ask('validate', path=path)
            problems = [Problem(**problem) for problem in found.pop('problems')]
            digests.append(Validation(**found, problems=problems).require_valid(Path(path)).digest)
        if goal.resume:
            job = goals.resumed(job, self._checkpoint(expert.name, goal.resume), digests[0])
        return job, digests[0]

    def _checkpoint(self, expert: str, name: str) -> str:
        """Folder of a checkpoint of an expert's newest job that has any, or of the job in "12/epoch_3"."""
        number, _, rest = name.rpartition('/')
        rows = [row for row in self._registry.jobs_of(expert) if not number or str(row.id) == number]
        for row in rows:
            store = CheckpointStore(job_folder(row.id) / 'checkpoints')
            if store.all():
                return str(store.named(rest).folder)
        raise TrainingError(f'No job of {expert} has a checkpoint to resume from ({name}); start without resume.')


def main() -> None:
    """Run the node."""
    spin(TrainingNode, THREADS)
