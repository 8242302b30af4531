"""Everything that can be asked of the suite, once: the name in the SDK, the ROS endpoint, the HTTP route, the scope.

The ROS transport, the HTTP transport and the gateway read this table; none of them knows an operation by itself.
Arguments and results are plain values whose names are the fields of the ROS interface, except where `adapt` says how
other arguments become those fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from moe_client.errors import InvalidRequest

Values = dict[str, Any]


class Kind(Enum):
    """How an operation is carried out on the graph."""

    SERVICE = 'srv'
    ACTION = 'action'
    TOPIC = 'msg'  # the next message is the result


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: 'experts.list'; the SDK's name for it.
        interface: 'ListExperts', of moe_interfaces unless a package stands before it: 'std_srvs/Trigger'.
        endpoint: name of the service, action or topic below the namespace.
        node: who serves it, for the sentence when nobody does.
        method, path: of the gateway; a {field} in the path is a field of the request.
        scope: API key scope that is needed: 'inference', 'manage' or 'hardware'.
        again: may be sent twice, so it is repeated when a node was killed under it.
        adapt: other arguments to the interface's fields.
        timeout_s: how long to wait for a service or topic.
    """

    name: str
    kind: Kind
    interface: str
    endpoint: str
    node: str
    method: str
    path: str
    scope: str
    again: bool = False
    adapt: Callable[[Values], Values] | None = None
    timeout_s: float = 10.0

    @property
    def in_query(self) -> bool:
        """Whether its fields are text in the URL's query instead of a JSON body."""
        return self.method in ('GET', 'DELETE')


def by_id_or_name(values: Values) -> Values:
    """Split id_or_name into the fields id and name."""
    reference = str(values.get('id_or_name', ''))
    rest = {key: value for key, value in values.items() if key != 'id_or_name'}
    return {**rest, **({'id': int(reference)} if reference.isdigit() and len(reference) < 10 else {'name': reference})}


_USUAL_NAMES = {'temperature': 'temp', 'repeat_penalty': 'penalty_repeat', 'frequency_penalty': 'penalty_freq',
                'presence_penalty': 'penalty_present', 'top_logprobs': 'n_probs'}
SAMPLING_FIELDS = ('n_prev', 'n_probs', 'ignore_eos', 'logit_bias', 'temp', 'top_k', 'top_p', 'min_p', 'typical_p',
                   'penalty_last_n', 'penalty_repeat', 'penalty_freq', 'penalty_present', 'mirostat', 'mirostat_eta',
                   'mirostat_tau', 'seed', 'grammar', 'json_schema', 'regex')


def generation_goal(values: Values) -> Values:
    """Options of a generation, by their usual or their own names, to fields of the goal; None changes nothing."""
    given = {_USUAL_NAMES.get(key, key): value for key, value in values.items() if value is not None}
    sampling = given.pop('sampling_config', {}) | {
        field: given.pop(field) for field in SAMPLING_FIELDS if field in given}
    schema = sampling.get('json_schema')
    if schema is not None and not isinstance(schema, str):
        sampling['json_schema'] = json.dumps(schema)
    given.pop('timeout', None)
    return {**given, **({'sampling_config': sampling} if sampling else {})}


def motion_command(values: Values) -> Values:
    """A joint and an angle in degrees to a motion command."""
    if 'joint' not in values:
        return values
    angle = values['degrees']
    if int(angle) == angle:
        angle = int(angle)
    return {'command': json.dumps({'joint': values['joint'], 'by' if values.get('relative') else 'to': angle}),
            'request_id': values.get('request_id', '')}


def _services(node: str, *rows: tuple[Any, ...]) -> list[Operation]:
    return [Operation(row[0], Kind.SERVICE, row[1], row[2], node, row[3], row[4], row[5],
                      **(row[6] if len(row) > 6 else {})) for row in rows]


def _actions(node: str, *rows: tuple[Any, ...]) -> list[Operation]:
    return [Operation(row[0], Kind.ACTION, row[1], row[2], node, row[3], row[4], row[5],
                      **(row[6] if len(row) > 6 else {})) for row in rows]


AGAIN: Values = {'again': True}
SLOW: Values = {'timeout_s': 120.0}
EXPERT = '/v1/experts/{expert}'
EXPERT_ROW = '/v1/experts/{id_or_name}'
NAMED: Values = {'adapt': by_id_or_name}

OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in [
    *_services(
        'registry',
        ('experts.list', 'ListExperts', 'registry/list_experts', 'GET', '/v1/experts', 'inference', AGAIN),
        ('experts.create', 'CreateExpert', 'registry/create_expert', 'POST', '/v1/experts', 'manage', SLOW),
        ('experts.update', 'UpdateExpert', 'registry/update_expert', 'PATCH', '/v1/experts', 'manage'),
        ('experts.get', 'GetExpert', 'registry/get_expert', 'GET', EXPERT_ROW, 'inference', {**AGAIN, **NAMED}),
        ('experts.delete', 'DeleteExpert', 'registry/delete_expert', 'DELETE', EXPERT_ROW, 'manage', NAMED),
        ('experts.resize', 'ResizeExpert', 'registry/resize_expert', 'POST', f'{EXPERT_ROW}/resize', 'manage',
         {**NAMED, **SLOW}),
        ('experts.versions', 'ListVersions', 'registry/list_versions', 'GET', f'{EXPERT}/versions', 'inference', AGAIN),
        ('experts.register', 'RegisterVersion', 'registry/register_version', 'POST', f'{EXPERT}/versions', 'manage',
         SLOW),
        ('experts.set_alias', 'SetAlias', 'registry/set_alias', 'POST', f'{EXPERT}/aliases', 'manage'),
        ('experts.promote', 'Promote', 'registry/promote', 'POST', f'{EXPERT}/promote', 'manage'),
        ('experts.rollback', 'Rollback', 'registry/rollback', 'POST', f'{EXPERT}/rollback', 'manage'),
        ('ab_tests.start', 'StartAbTest', 'registry/start_ab_test', 'POST', '/v1/ab-tests', 'manage'),
        ('ab_tests.get', 'GetAbTest', 'registry/get_ab_test', 'GET', '/v1/ab-tests/{id}', 'inference', AGAIN),
        ('ab_tests.stop', 'StopAbTest', 'registry/stop_ab_test', 'POST', '/v1/ab-tests/{id}/stop', 'manage'),
        ('training.jobs', 'ListTrainingJobs', 'registry/list_training_jobs', 'GET', '/v1/training/jobs', 'inference',
         AGAIN),
        ('training.job', 'GetTrainingJob', 'registry/get_training_job', 'GET', '/v1/training/jobs/{id}', 'inference',
         AGAIN),
        ('training.update', 'UpdateTrainingJob', 'registry/update_training_job', 'PUT', '/v1/training/jobs', 'manage'),
        ('router.routes', 'ListRoutes', 'registry/list_routes', 'GET', '/v1/router/routes', 'inference', AGAIN),
        ('router.fit', 'GetRouterVersion', 'registry/get_router_version', 'GET', '/v1/router/fits/{number}',
         'inference', AGAIN),
        ('registry.events', 'ListEvents', 'registry/list_events', 'GET', '/v1/registry/events', 'inference', AGAIN),
        ('registry.maintain', 'MaintainRegistry', 'registry/maintain_registry', 'POST', '/v1/registry/maintain',
         'manage', SLOW),
        ('notes.add', 'AddNotes', 'registry/add_notes', 'POST', '/v1/notes', 'manage'),
        ('notes.list', 'ListNotes', 'registry/list_notes', 'GET', '/v1/notes', 'inference', AGAIN),
        ('notes.remove', 'RemoveNotes', 'registry/remove_notes', 'POST', '/v1/notes/remove', 'manage'),
        ('feedback.give', 'Feedback', 'registry/feedback', 'POST', '/v1/inference/feedback', 'inference'),
        ('keys.create', 'CreateApiKey', 'registry/create_api_key', 'POST', '/v1/keys', 'manage'),
        ('keys.list', 'ListApiKeys', 'registry/list_api_keys', 'GET', '/v1/keys', 'manage', AGAIN),
        ('keys.revoke', 'RevokeApiKey', 'registry/revoke_api_key', 'DELETE', '/v1/keys/{id}', 'manage'),
    ),
    *_services(
        'experts',
        ('experts.load', 'LoadExpert', 'experts/load_expert', 'POST', f'{EXPERT}/load', 'manage', SLOW),
        ('experts.unload', 'UnloadExpert', 'experts/unload_expert', 'POST', f'{EXPERT}/unload', 'manage', SLOW),
        ('experts.metadata', 'GetMetadata', 'experts/get_metadata', 'GET', f'{EXPERT}/metadata', 'inference', SLOW),
        ('experts.clear_cache', 'ClearCache', 'experts/clear_cache', 'POST', '/v1/cache/clear', 'manage'),
        ('inference.embed', 'GenerateEmbeddings', 'experts/generate_embeddings', 'POST', '/v1/inference/embeddings',
         'inference', SLOW),
        ('inference.tokenize', 'Tokenize', 'experts/tokenize', 'POST', '/v1/inference/tokenize', 'inference', SLOW),
        ('inference.detokenize', 'Detokenize', 'experts/detokenize', 'POST', '/v1/inference/detokenize', 'inference',
         SLOW),
        ('inference.score', 'Score', 'experts/score', 'POST', '/v1/inference/score', 'inference', SLOW),
        ('inference.rerank', 'RerankDocuments', 'experts/rerank_documents', 'POST', '/v1/inference/rerank',
         'inference', SLOW),
    ),
    *_services(
        'router',
        ('router.route', 'RoutePrompt', 'route_prompt', 'POST', '/v1/router/route', 'inference', AGAIN),
        ('router.explain', 'ExplainRoute', 'router/explain', 'POST', '/v1/router/explain', 'inference', AGAIN),
        ('router.stats', 'GetRouterStats', 'router/stats', 'GET', '/v1/router/stats', 'inference', AGAIN),
        ('router.correct', 'CorrectRoute', 'correct_route', 'POST', '/v1/router/correct', 'manage'),
    ),
    *_services(
        'training',
        ('datasets.validate', 'ValidateDataset', 'training/validate_dataset', 'POST', '/v1/datasets/validate',
         'manage', SLOW),
        ('datasets.analyze', 'AnalyzeDataset', 'training/analyze_dataset', 'POST', '/v1/datasets/analyze', 'manage',
         SLOW),
        ('datasets.prepare', 'PrepareDataset', 'training/prepare_dataset', 'POST', '/v1/datasets/prepare', 'manage',
         SLOW),
    ),
    *_services(
        'servos',
        ('hardware.scan', 'ScanServos', 'scan_servos', 'POST', '/v1/hardware/servos/scan', 'hardware', SLOW),
        ('hardware.set_id', 'SetServoId', 'set_servo_id', 'POST', '/v1/hardware/servos/id', 'hardware'),
        ('hardware.torque', 'SetTorque', 'set_torque', 'POST', '/v1/hardware/servos/torque', 'hardware'),
        ('hardware.reboot', 'RebootServos', 'reboot', 'POST', '/v1/hardware/servos/reboot', 'hardware'),
        ('hardware.estop', 'std_srvs/Trigger', 'estop', 'POST', '/v1/hardware/estop', 'hardware'),
        ('hardware.reset_estop', 'std_srvs/Trigger', 'reset_estop', 'POST', '/v1/hardware/estop/reset', 'hardware'),
    ),
    *_services(
        'camera',
        ('hardware.capture', 'SetCapture', 'set_capture', 'POST', '/v1/hardware/camera/capture', 'hardware'),
    ),
    *_actions(
        'router',
        ('inference.generate', 'GenerateResponse', 'generate_response', 'POST', '/v1/inference/generate', 'inference',
         {'adapt': generation_goal}),
        ('inference.chat', 'GenerateChatCompletions', 'generate_chat_completions', 'POST', '/v1/inference/chat',
         'inference', {'adapt': generation_goal}),
        ('router.retrain', 'RetrainRouter', 'retrain_router', 'POST', '/v1/router/retrain', 'manage'),
    ),
    *_actions(
        'training',
        ('training.train', 'TrainExpert', 'train_expert', 'POST', '/v1/training/train', 'manage'),
        ('experts.quantize', 'QuantizeModel', 'quantize_model', 'POST', f'{EXPERT}/quantize', 'manage'),
        ('experts.convert', 'ConvertModel', 'convert_model', 'POST', '/v1/conversions', 'manage'),
    ),
    *_actions(
        'experts',
        ('experts.benchmark', 'BenchmarkExpert', 'experts/benchmark_expert', 'POST', f'{EXPERT}/benchmark', 'manage'),
    ),
    *_actions(
        'motion',
        ('hardware.execute', 'ExecuteMotion', 'execute_motion', 'POST', '/v1/hardware/motion', 'hardware'),
        ('hardware.move', 'ExecuteMotion', 'execute_motion', 'POST', '/v1/hardware/servo/move', 'hardware',
         {'adapt': motion_command}),
    ),
    *_actions(
        'imu',
        ('hardware.calibrate_imu', 'CalibrateImu', 'calibrate_imu', 'POST', '/v1/hardware/imu/calibrate', 'hardware'),
    ),
    Operation('hardware.joints', Kind.TOPIC, 'sensor_msgs/JointState', 'joint_states', 'servos', 'GET',
              '/v1/hardware/joints', 'hardware', timeout_s=5.0),
    Operation('hardware.servos', Kind.TOPIC, 'ServoStates', 'servo_states', 'servos', 'GET', '/v1/hardware/servos',
              'hardware', timeout_s=5.0),
    Operation('hardware.imu', Kind.TOPIC, 'sensor_msgs/Imu', 'imu/data', 'imu', 'GET', '/v1/hardware/imu', 'hardware',
              timeout_s=5.0),
    Operation('experts.serving', Kind.TOPIC, 'ServingStatus', 'experts/status', 'experts', 'GET',
              '/v1/inference/serving', 'inference', timeout_s=5.0),
]}


def find(name: str) -> Operation:
    """The operation of a name; raises InvalidRequest for any other."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise InvalidRequest(f'There is no operation {name!r}.')
    return operation
