"""The services training/validate_dataset, analyze_dataset and prepare_dataset; the work is done in own processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from moe_interfaces.srv import AnalyzeDataset, PrepareDataset, ValidateDataset
from moe_training.command import ask
from moe_training.errors import TrainingError
from moe_training.ros.goals import dataset_within
from moe_training.ros.registry import SERVICE_QOS


class DatasetServices:
    """Serves the three services; `roots` are the folders that files may be in."""

    def __init__(self, node: Node, roots: Callable[[], list[str]]) -> None:
        self._roots = roots
        group = ReentrantCallbackGroup()
        for interface, name, work in ((ValidateDataset, 'validate', self._validate),
                                      (AnalyzeDataset, 'analyze', self._analyse),
                                      (PrepareDataset, 'prepare', self._prepare)):
            node.create_service(interface, f'training/{name}_dataset', self._answered(work), qos_profile=SERVICE_QOS,
                                callback_group=group)

    @staticmethod
    def _answered(work: Callable[[Any, Any], None]) -> Callable[[Any, Any], Any]:
        def respond(request: Any, response: Any) -> Any:
            try:
                work(request, response)
            except TrainingError as error:
                response.error_code, response.error_msg = error.code, str(error)
            return response
        return respond

    def _check(self, *paths: str) -> None:
        for path in filter(None, paths):
            dataset_within(path, self._roots())

    def _validate(self, request: Any, response: Any) -> None:
        self._check(request.path)
        found = ask('validate', path=request.path)
        response.rows, response.bad_rows, response.digest = found['rows'], found['bad_rows'], found['digest']
        response.lines = [problem['line'] for problem in found['problems']]
        response.reasons = [problem['reason'] for problem in found['problems']]

    def _analyse(self, request: Any, response: Any) -> None:
        self._check(request.path, request.compared_with, request.plot)
        response.report = json.dumps(ask('analyse', path=request.path, compared_with=request.compared_with,
                                         plot=request.plot))

    def _prepare(self, request: Any, response: Any) -> None:
        self._check(*request.paths, request.output)
        found = ask('prepare', domain=request.domain, paths=list(request.paths), output=request.output,
                    holdout=request.holdout)
        for name in ('train', 'heldout', 'rows', 'dropped', 'digest'):
            setattr(response, name, found[name])
        response.report = json.dumps({name: found[name] for name in ('heldout_rows', 'reasons', 'problems')})
