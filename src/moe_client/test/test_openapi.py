"""schemathesis: whatever fits the OpenAPI document is answered as the document says, and never with a failure."""

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = 3  # of each operation
CHOSEN = [response_schema_conformance, status_code_conformance, content_type_conformance]
STREAMS = ('/v1/training/train', '/v1/training/jobs')  # would begin trainings


@pytest.fixture(scope='module')
def schema(gateway):
    return schemathesis.openapi.from_url(f'{gateway.url}/openapi.json')


def test_the_document_is_held(schema):
    """One test for all operations: the document is that of a running gateway."""
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path not in STREAMS:
            tried += 1
            _try(operation)
    assert tried > 50


def _try(operation):
    @hypothesis.given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))
    def run(case):
        if case.body and isinstance(case.body, dict) and 'max_tokens' in case.body:
            case.body['max_tokens'] = 2
        response = case.call(timeout=60.0)
        # 503 names a node that this small suite lacks; everything else above 499 would be the gateway's own failure
        assert response.status_code < 500 or response.status_code in (503, 504), response.text
        if response.status_code in (503, 504):
            assert response.json()['error'], response.text
        case.validate_response(response, checks=CHOSEN)
    run()
