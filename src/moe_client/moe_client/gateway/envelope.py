"""The form of every answer: {"success", "data", "error": {code, message, details}, "timestamp"}."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from moe_client.errors import MoeError

Data = TypeVar('Data')
STATUS_BY_CODE = {
    1000: 404, 1001: 409, 1002: 422, 1003: 409, 1004: 409, 1005: 409, 2000: 422, 2001: 422, 3000: 500, 3001: 504,
    3002: 503, 3003: 499, 3004: 400, 4000: 503, 4001: 422, 5000: 503, 6000: 401, 6001: 403, 6002: 429}
INTERNAL_ERROR = 3000
INVALID_REQUEST = 3004
FAILURES = {400: 'wrong as it is', 401: 'no key, or a wrong one', 403: 'the key lacks the scope', 404: 'not found',
            408: 'the body came too slowly', 409: 'state forbids it', 413: 'too large', 422: 'wrong values',
            429: 'too many requests', 499: 'cancelled', 500: 'failed', 503: 'a node is away', 504: 'timed out'}
OPENAI_PATHS = ('/v1/chat/completions', '/v1/completions', '/v1/embeddings', '/v1/models')


class Problem(BaseModel):
    """What went wrong."""

    code: int
    message: str
    details: dict[str, Any] = {}


class Failure(BaseModel):
    """The answer to a request that failed."""

    success: Literal[False]
    data: None = None
    error: Problem
    timestamp: str


class OpenAiProblem(BaseModel):
    """What went wrong, as OpenAI says it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAiFailure(BaseModel):
    """The answer to a request of OpenAI's API that failed."""

    error: OpenAiProblem


class Success(BaseModel, Generic[Data]):
    """The answer to a request that succeeded."""

    success: Literal[True]
    data: Data
    error: None = None
    timestamp: str


def status_of(error: MoeError) -> int:
    """HTTP status of an error."""
    return STATUS_BY_CODE.get(error.code, 500)


def plain_json(value: Any) -> bytes:
    """JSON without NaN; floats of 32 bits in the digits that they have."""
    return json.dumps(value, ensure_ascii=False, separators=(',', ':'), default=str).encode('utf-8', 'replace')


def finite(value: Any) -> Any:
    """Replace what JSON cannot say: NaN and infinities by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return value


def now() -> str:
    """The time of an answer, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec='milliseconds')


class JsonBytes(Response):
    """A response of a value that is written by plain_json."""

    media_type = 'application/json'

    def render(self, content: Any) -> bytes:
        """Write the value."""
        return plain_json(content)


def success(data: Any, status: int = 200) -> Response:
    """The answer with data."""
    return JsonBytes({'success': True, 'data': data, 'error': None, 'timestamp': now()}, status)


def problem(error: MoeError) -> dict[str, Any]:
    """The field "error" of an answer."""
    details = {'kind': type(error).__name__}
    if error.retry_after_s:
        details['retry_after_s'] = error.retry_after_s  # type: ignore[assignment]
    return {'code': error.code or INTERNAL_ERROR, 'message': str(error), 'details': details}


def failure(path: str, code: int, message: str, status: int, details: dict[str, Any] | None = None,
            headers: dict[str, str] | None = None) -> Response:
    """The answer with an error, in OpenAI's form on OpenAI's paths."""
    if path.startswith(OPENAI_PATHS):
        kind = 'invalid_request_error' if status in (400, 404, 413, 422) else \
            'authentication_error' if status == 401 else 'permission_error' if status == 403 else \
            'rate_limit_error' if status == 429 else 'server_error'
        body: dict[str, Any] = {'error': {
            'message': message, 'type': kind, 'param': (details or {}).get('field'),
            'code': 'model_not_found' if code == 1000 else str(code)}}
    else:
        body = {'success': False, 'data': None,
                'error': {'code': code, 'message': message, 'details': details or {}}, 'timestamp': now()}
    return JsonBytes(body, status, headers)


def failure_of(path: str, error: MoeError) -> Response:
    """The answer to an error of the SDK."""
    told = problem(error)
    headers = {'Retry-After': str(max(1, math.ceil(error.retry_after_s)))} if error.code in (3002, 6002) else None
    return failure(path, told['code'], told['message'], status_of(error), told['details'], headers)
