"""Which batches are recorded where nobody says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.errors import UsageError
from flightlog_keras import FlightlogCallback, pace

from .conftest import classifier
from .test_fit import Fit, OnlyRun, rows


class Clock:
    """A clock that goes on when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def recorded(batch: float, record: float, count: int, per_call: int = 1) -> list[int]:
    """Return which batches of an epoch are recorded, whose batches and records take so many seconds."""
    clock = Clock()
    chosen = pace.Pace("auto", clock)
    found = []
    for done in range(per_call, count + 1, per_call):
        clock.now += batch * per_call
        if chosen.is_due(done, per_call):
            found.append(done)
            with chosen.recording():
                clock.now += record
    return found


def test_each_batch_of_usual_length_is_recorded() -> None:
    """Records of a tenth of a millisecond, batches of 25 ms and more: each one."""
    assert recorded(0.0251, 0.0001, 50) == list(range(1, 51))


@given(batch=st.floats(1e-4, 0.02), record=st.floats(1e-5, 4e-4), per_call=st.sampled_from([1, 4]))
def test_records_of_quick_batches_take_no_more_than_their_share(batch: float, record: float, per_call: int) -> None:
    """However quick they are: the first is there, and all records together take no more than their share."""
    found = recorded(batch, record, 2000, per_call)
    assert found[0] == per_call
    assert (len(found) - 1) * record <= pace.SHARE * (2000 * batch + len(found) * record) * 1.01


def test_a_record_that_was_held_up_does_not_silence_those_behind_it() -> None:
    """A record that took a whole second, by another program's fault, is followed by one a tenth of a second later."""
    clock = Clock()
    chosen = pace.Pace("auto", clock)
    with chosen.recording():
        clock.now += 1.0
    clock.now += 0.09
    assert not chosen.is_due(10, 1)
    clock.now += 0.02
    assert chosen.is_due(11, 1)


def test_the_first_batch_of_each_epoch_is_recorded(fit: Fit, only_run: OnlyRun) -> None:
    """A real fit of very quick batches: the first of each epoch is there, and so is the end of each."""
    callback = FlightlogCallback()
    fit(classifier(), callback)
    callback.finish()
    assert {1, 9} <= set(rows(only_run(), "batch/loss")) <= set(range(1, 17))
    assert list(rows(only_run(), "loss")) == [8, 16]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "each"])
def test_a_pace_that_is_none_is_refused(wrong: object) -> None:
    """At once, with what would be one."""
    with pytest.raises(UsageError, match="auto"):
        FlightlogCallback(log_every=wrong)  # type: ignore[arg-type]
