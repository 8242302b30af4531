"""Errors keep the code they were reported with."""

import pytest

from moe_training.errors import CancelledError, DatasetError, TrainingError, error_of


@pytest.mark.parametrize(('code', 'kind'), [
    (2000, TrainingError), (2001, DatasetError), (3003, CancelledError), (5000, TrainingError), (1005, TrainingError)])
def test_a_reported_code_is_kept(code, kind):
    error = error_of(code, 'why')
    assert (type(error), error.code, str(error)) == (kind, code, 'why')
