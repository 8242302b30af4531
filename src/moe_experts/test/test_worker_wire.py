"""What a node asks is what its worker gets."""

import json
import time
from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from moe_experts.engines.engine import Part, Request, Sampling
from moe_experts.worker.wire import fields_of, request_of

texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False, width=32)
messages = st.lists(st.tuples(texts, texts), min_size=1, max_size=3).map(tuple)
parts = st.builds(Part, texts, numbers, messages, numbers)
samplings = st.builds(Sampling, numbers, st.integers(), numbers, numbers, numbers, st.integers(), numbers, numbers,
                      numbers, st.integers(), numbers, numbers, st.integers(), st.integers(), st.booleans(),
                      st.lists(st.tuples(st.integers(), numbers), max_size=3).map(tuple))
requests = st.builds(Request, texts, messages, texts, numbers, st.lists(parts, max_size=3).map(tuple), samplings,
                     st.integers(), st.integers(), st.lists(texts, max_size=3).map(tuple), texts, texts, texts,
                     st.integers(), st.just(0.0), texts)


@given(requests)
def test_every_field_crosses(request):
    assert request_of(json.loads(json.dumps(fields_of(request)))) == request


def test_the_strategies_fill_every_field():
    assert (len(fields(Request)), len(fields(Sampling)), len(fields(Part))) == (15, 16, 4)


def test_a_deadline_crosses_as_time_left():
    asked = Request('a', (('user', 'hello'),), deadline=time.monotonic() + 5.0)
    got = request_of(json.loads(json.dumps(fields_of(asked))))
    assert abs(got.deadline - asked.deadline) < 1.0
    assert replace(got, deadline=asked.deadline) == asked
    assert fields_of(replace(asked, deadline=1e-9))['timeout_s'] > 0.0, 'one that has passed is no lack of one'
