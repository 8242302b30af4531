"""Training jobs and their datasets."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from moe_client.errors import MoeError, Timeout
from moe_client.experts import DAY_S
from moe_client.transport import Transport, Values
from moe_client.types import TrainingJob, TrainingProgress

START_TIMEOUT_S = 60.0
POLL_S = 0.2


class Training:
    """Training jobs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def train(self, expert: str, dataset: str, *, epochs: float = 3.0, max_steps: int = 0, batch_size: int = 8,
              learning_rate: float = 0.0, lora_rank: int = 8, seed: int = 42, heldout: str = '', promote: bool = True,
              timeout: float = DAY_S, **fields: Any) -> Iterator[TrainingProgress]:
        """Train a new version; yields progress, at the end phase "done". Closing the iterator cancels the job.

        `fields` is other fields of TrainExpert: method, scheduler, precision, resume, early_stopping_patience, ...
        """
        goal = _goal(expert, dataset, epochs=epochs, max_steps=max_steps, batch_size=batch_size,
                     learning_rate=learning_rate, lora_rank=lora_rank, seed=seed, heldout=heldout, promote=promote,
                     **fields)
        with contextlib.closing(self._transport.stream('training.train', goal, timeout)) as events:
            for event in events:
                yield (TrainingProgress.of if event.kind != 'result' else TrainingProgress.done)(event.data)

    def start(self, expert: str, dataset: str, **fields: Any) -> TrainingJob:
        """Begin a training job that goes on without this client; fields as train().

        Raises what the job fails with before it is queued: DatasetInvalid, ExpertNotFound, ...
        """
        known = max((job.id for job in self.list(expert)), default=0)
        failure: list[MoeError] = []

        def follow() -> None:
            # The goal outlives this thread and this client; only its early end is of interest here.
            try:
                for _event in self._transport.stream('training.train', _goal(expert, dataset, **fields), DAY_S):
                    continue
            except MoeError as error:
                failure.append(error)

        threading.Thread(target=follow, daemon=True, name='training').start()
        give_up = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up:
            if found := [job for job in self.list(expert) if job.id > known]:
                return found[-1]
            if failure:
                raise failure[0]
            time.sleep(POLL_S)
        raise Timeout(f'Request timed out: no training job of {expert} was queued within {START_TIMEOUT_S:g} s.')

    def list(self, expert: str = '', status: str = '') -> list[TrainingJob]:
        """Training jobs, newest first."""
        values = self._transport.call('training.jobs', {'expert': expert, 'status': status, 'limit': 1000})
        return [TrainingJob.of(job) for job in values['jobs']]

    def status(self, number: int) -> TrainingJob:
        """One training job."""
        return TrainingJob.of(self._transport.call('training.job', {'id': number})['job'])

    def stop(self, number: int) -> TrainingJob:
        """Cancel a training job; one that has ended stays as it is."""
        return self._end(number, 'cancelled')

    def fail(self, number: int, reason: str = '') -> TrainingJob:
        """Mark a training job as failed, which also stops it; one that has ended stays as it is."""
        return self._end(number, 'failed', error_msg=reason or 'Marked as failed by hand.')

    def _end(self, number: int, status: str, **fields: Any) -> TrainingJob:
        job = self._transport.call('training.job', {'id': number})['job']
        values = self._transport.call('training.update', {'job': ended(job, status, **fields)})
        return TrainingJob.of(values['job'])


class Datasets:
    """What experts are trained on; paths are those of the training host."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def validate(self, path: str) -> Values:
        """Name every bad row: a ValidateDataset response."""
        return self._transport.call('datasets.validate', {'path': path})

    def analyze(self, path: str, compared_with: str = '', plot: str = '') -> Values:
        """Lengths, duplicates, leakage."""
        report = self._transport.call('datasets.analyze', {
            'path': path, 'compared_with': compared_with, 'plot': plot})['report']
        analysis: Values = json.loads(report or '{}')
        return analysis

    def prepare(self, domain: str, paths: list[str], output: str = '', holdout: float = 0.1) -> Values:
        """Clean, split and write a dataset: a PrepareDataset response."""
        return self._transport.call('datasets.prepare', {
            'domain': domain, 'paths': paths, 'output': output, 'holdout': holdout})


def ended(job: Values, status: str, **fields: Any) -> Values:
    """A job as it is written to end it; one that has ended stays as it is."""
    return {**job, 'status': status, **fields} if job['status'] in ('queued', 'running') else job


def _goal(expert: str, dataset: str, **fields: Any) -> Values:
    if 'lora_rank' in fields and 'lora_alpha' not in fields:
        fields['lora_alpha'] = 2.0 * fields['lora_rank']
    return {'expert': expert, 'dataset': dataset, **fields}
