"""Results come in the order of the things, and only a few things are begun ahead."""

import threading
import time
from contextlib import closing

import pytest

from lvt_ff.utils.in_order import in_order


def test_results_are_in_order_however_long_each_takes():
    def slow_at_first(number):
        time.sleep(0.02 if number == 0 else 0)
        return number**2

    assert list(in_order(slow_at_first, range(50), 3)) == [number**2 for number in range(50)]


def test_things_are_taken_a_few_ahead():
    taken = []

    def things():
        for number in range(1000):
            taken.append(number)
            yield number

    with closing(in_order(str, things(), 2)) as results:
        assert next(results) == "0"
        assert len(taken) < 20


def test_an_error_comes_through_and_ends_the_threads():
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 / number, [1, 0, 1], 2))
    assert set(threading.enumerate()) <= before
