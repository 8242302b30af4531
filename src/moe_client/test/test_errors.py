"""Errors agree with the interface's codes."""

import pytest

from moe_client import errors
from moe_interfaces.msg import ErrorCode


@pytest.mark.parametrize(('name', 'kind'), [
    ('EXPERT_NOT_FOUND', errors.ExpertNotFound), ('EXPERT_NOT_READY', errors.ExpertNotReady),
    ('NAME_TAKEN', errors.NameTaken), ('TRAINING_FAILED', errors.TrainingFailed),
    ('DATASET_INVALID', errors.DatasetInvalid), ('INFERENCE_FAILED', errors.InferenceFailed),
    ('TIMEOUT', errors.Timeout), ('OVERLOADED', errors.Overloaded), ('CANCELLED', errors.Cancelled),
    ('INVALID_REQUEST', errors.InvalidRequest), ('HARDWARE_ERROR', errors.HardwareError),
    ('SAFETY_VIOLATION', errors.SafetyViolation), ('DATABASE_UNAVAILABLE', errors.Unavailable),
])
def test_each_code_raises_its_class(name, kind):
    with pytest.raises(kind, match=r'^why$') as caught:
        errors.raise_for(getattr(ErrorCode, name), 'why')
    assert caught.value.code == getattr(ErrorCode, name)


def test_success_raises_nothing():
    errors.raise_for(ErrorCode.NONE, '')


def test_timeout_is_a_timeout_error():
    with pytest.raises(TimeoutError):
        errors.raise_for(ErrorCode.TIMEOUT, 'Request timed out')


def test_codes_without_a_class_keep_their_number():
    with pytest.raises(errors.MoeError) as caught:
        errors.raise_for(ErrorCode.RATE_LIMITED, 'slow down', retry_after_s=2.0)
    assert (caught.value.code, caught.value.retry_after_s) == (6002, 2.0)
