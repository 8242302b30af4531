"""The queue of jobs by itself."""

import threading

from moe_interfaces.msg import TrainingJob
from moe_training.job import Job
from moe_training.ros.job_queue import Entry, JobQueue


def test_a_job_that_comes_when_another_has_just_ended_has_its_turn():
    ran = threading.Semaphore(0)
    queue = JobQueue(1, lambda _entry: ran.release(), lambda _entry: None)
    try:
        for _ in range(200):
            queue.add(Entry(TrainingJob(), Job('', ''), promote=False))
            assert ran.acquire(timeout=10.0)
    finally:
        assert queue.close() == []
