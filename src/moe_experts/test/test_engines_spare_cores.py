"""How many threads a step may use."""

import time

import pytest

from moe_experts.engines.spare_cores import WINDOW_S, SpareCores, spare


@pytest.mark.parametrize(('cores', 'busy', 'own', 'count'), [
    (2, 0.0, 0.0, 2), (2, 2.0, 2.0, 2), (2, 1.0, 0.0, 1), (2, 2.0, 1.0, 1), (2, 0.2, 0.0, 2), (2, 0.5, 0.0, 1),
    (4, 3.0, 1.0, 2), (4, 4.0, 0.0, 1), (4, 9.0, 0.0, 1), (4, 0.5, 1.0, 4)])
def test_what_others_use_is_left_to_them(cores, busy, own, count):
    assert spare(cores, busy, own, 1.0) == count
    assert spare(cores, busy * 3, own * 3, 3.0) == count


def test_the_counters_of_this_machine_are_read():
    cores = SpareCores(4)
    assert cores.count() == 4
    time.sleep(1.5 * WINDOW_S)
    assert 1 <= cores.count() <= 4
    cores.close()


def test_a_single_thread_needs_no_counting():
    cores = SpareCores(1)
    time.sleep(1.5 * WINDOW_S)
    assert cores.count() == 1
    cores.close()
