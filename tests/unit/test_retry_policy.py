"""Retry policies: the numbers of the origin, composed."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from perdure.retry_policy import (
    ConstantDelayRetryPolicy,
    ExponentialBackoffRetryPolicy,
    RetryCondition,
    RetryPolicy,
    StopCondition,
    WaitStrategy,
    retry_all,
    retry_always,
    retry_any,
    retry_if_exception,
    retry_if_exception_cause_type,
    retry_if_exception_message,
    retry_if_exception_type,
    retry_if_not_exception_message,
    retry_if_not_exception_type,
    retry_never,
    retry_policy,
    retry_unless_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    stop_any,
    stop_before_delay,
    stop_never,
    wait_chain,
    wait_combine,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
    wait_full_jitter,
    wait_incrementing,
    wait_none,
    wait_random,
    wait_random_exponential,
)

BOOM = ValueError("boom")


def caused(by: BaseException) -> Exception:
    error = RuntimeError("outer")
    error.__cause__ = by
    return error


def test_the_default_is_three_attempts_five_seconds_apart() -> None:
    policy = retry_policy()
    assert [policy.next(0, n, BOOM) for n in (1, 2, 3, 4)] == [5, 5, None, None]
    assert isinstance(policy, RetryPolicy)


def test_n_attempts_are_n_executions_and_the_first_exponential_wait_is_the_multiplier() -> None:
    policy = retry_policy(wait=wait_exponential(multiplier=2, max=10), stop=stop_after_attempt(5))
    assert [policy.next(0, n, BOOM) for n in range(1, 6)] == [2, 4, 8, 10, None]


def test_a_condition_that_fails_gives_up() -> None:
    assert retry_policy(retry_if_exception_type(KeyError)).next(0, 1, BOOM) is None
    assert retry_policy(lambda error: "boom" in str(error)).next(0, 1, BOOM) == 5


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (retry_if_exception(lambda e: True), True),
        (retry_if_exception_type((KeyError, ValueError)), True),
        (retry_if_exception_type(), True),
        (retry_if_not_exception_type(ValueError), False),
        (retry_unless_exception_type(KeyError), True),
        (retry_if_exception_message(message="boom"), True),
        (retry_if_exception_message(message="boo"), False),
        (retry_if_exception_message(match="oo"), True),
        (retry_if_exception_message(match=re.compile("OO", re.IGNORECASE)), True),
        (retry_if_not_exception_message(match="oo"), False),
        (retry_if_not_exception_message(message="boo"), True),
        (retry_if_exception_cause_type(KeyError), False),
        (retry_always(), True),
        (retry_never(), False),
        (retry_any(), False),
        (retry_all(), True),
        (retry_always() & retry_never(), False),
        (retry_always() | retry_never(), True),
        (retry_never() | (lambda e: True), True),
        ((lambda e: False) | retry_never(), False),
        ((lambda e: True) & retry_always(), True),
    ],
)
def test_conditions(condition: Any, holds: bool) -> None:
    assert condition(BOOM) is holds
    assert isinstance(condition, RetryCondition)


def test_causes_are_walked_however_far_and_contexts_are_not() -> None:
    condition = retry_if_exception_cause_type(KeyError)
    assert condition(caused(caused(KeyError())))
    assert not condition(caused(ValueError()))
    within = RuntimeError()
    within.__context__ = KeyError()
    assert not condition(within)
    circle = RuntimeError()
    circle.__cause__ = circle
    assert not condition(circle)


@pytest.mark.parametrize("arguments", [{}, {"message": "a", "match": "b"}])
def test_a_message_condition_takes_exactly_one(arguments: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="exactly one"):
        retry_if_exception_message(**arguments)


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (wait_fixed(timedelta(minutes=1)), [60, 60, 60]),
        (wait_none(), [0, 0, 0]),
        (wait_exponential(), [1, 2, 4, 8, 16, 32, 60, 60]),
        (wait_exponential(min=3, max=20), [3, 3, 4, 8, 16, 20]),
        (wait_incrementing(1, 2, 6), [1, 3, 5, 6]),
        (wait_incrementing(start=5, increment=-3), [5, 2, 0, 0]),
        (wait_exponential_jitter(initial=4, jitter=0), [4, 8, 16, 32, 60]),
        (wait_chain(wait_fixed(1), wait_fixed(2)), [1, 2, 2]),
        (wait_combine(), [0]),
        (wait_fixed(1) + wait_exponential(), [2, 3, 5]),
        (sum([wait_fixed(1), wait_fixed(2), wait_fixed(3)]), [6]),
        (wait_fixed(1) + (lambda retry: retry * 10), [1, 11]),
    ],
)
def test_waits(wait: Any, seconds: list[float]) -> None:
    assert [wait(n) for n in range(len(seconds))] == seconds
    assert isinstance(wait, WaitStrategy)


def test_a_wait_that_grows_past_all_numbers_is_its_maximum() -> None:
    assert wait_exponential()(100_000) == 60
    assert wait_exponential_jitter()(100_000) == 60


@pytest.mark.parametrize(
    ("wait", "low", "high"),
    [
        (wait_random(1, 2), 1, 2),
        (wait_random_exponential(max=8, min=2), 2, 8),
        (wait_full_jitter(), 0, 8),
        (wait_exponential_jitter(jitter=3), 8, 11),
    ],
)
def test_jitter_stays_in_its_bounds_and_a_seed_fixes_it(wait: Any, low: float, high: float) -> None:
    drawn = [wait(3, seed=seed) for seed in range(50)]
    assert all(low <= value <= high for value in drawn)
    assert len(set(drawn)) > 40
    assert drawn == [wait(3, seed=seed) for seed in range(50)]
    assert low <= wait(3) <= high


def test_the_jitters_of_a_sum_are_not_the_same_draw() -> None:
    first, second = wait_random(0, 1), wait_random(0, 1)
    assert (first + second)(0, seed=1) != 2 * first(0, seed=1)


def test_a_chain_needs_a_wait() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wait_chain()


@pytest.mark.parametrize(
    ("stop", "arguments", "stops"),
    [
        (stop_after_attempt(3), (2, 0), False),
        (stop_after_attempt(3), (3, 0), True),
        (stop_after_delay(timedelta(seconds=5)), (1, 4.9), False),
        (stop_after_delay(5), (1, 5), True),
        (stop_never(), (99, 1e9), False),
        (stop_any(), (1, 1), False),
        (stop_all(), (1, 1), True),
        (stop_after_attempt(3) | stop_never(), (3, 0), True),
        (stop_after_attempt(3) & stop_never(), (3, 0), False),
        (stop_never() | (lambda attempts, elapsed: attempts == 2), (2, 0), True),
        ((lambda attempts, elapsed: True) & stop_after_delay(1), (2, 2), True),
    ],
)
def test_stops(stop: Any, arguments: tuple[int, float], stops: bool) -> None:
    assert stop(*arguments) is stops
    assert isinstance(stop, StopCondition)


def test_stop_before_delay_looks_ahead() -> None:
    stop = stop_before_delay(5)
    assert stop(1, 4, upcoming_sleep=1)
    assert not stop(1, 4, upcoming_sleep=0.9)
    policy = retry_policy(wait=wait_fixed(3), stop=stop_before_delay(5) | stop_never())
    assert policy.next(1, 1, BOOM) == 3
    assert policy.next(2, 2, BOOM) is None


def test_a_policy_passes_its_seed_to_waits_that_take_one() -> None:
    policy = retry_policy(wait=wait_random(0, 10))
    assert policy.next(0, 1, BOOM, seed=3) == policy.next(0, 1, BOOM, seed=3)
    assert policy.next(0, 1, BOOM, seed=3) != policy.next(0, 1, BOOM, seed=4)
    assert retry_policy(wait=lambda retry: 1.5).next(0, 1, BOOM, seed=3) == 1.5


def test_the_old_names_warn_and_work() -> None:
    with pytest.warns(DeprecationWarning, match="wait_fixed"):
        constant = ConstantDelayRetryPolicy(maximum_attempts=2, delay=1)
    assert [constant.next(0, n, BOOM) for n in (1, 2)] == [1, None]
    with pytest.warns(DeprecationWarning, match="wait_exponential"):
        exact = ExponentialBackoffRetryPolicy(jitter=False)
    assert [exact.next(0, n, BOOM) for n in range(1, 6)] == [1, 2, 4, 8, None]
    with pytest.warns(DeprecationWarning):
        jittered = ExponentialBackoffRetryPolicy().next(0, 4, BOOM, seed=1)
    assert jittered is not None
    assert 0 <= jittered <= 8


def test_strategies_may_be_asked_by_the_origins_names() -> None:
    assert wait_exponential()(attempts=2, seed=1) == 4
    assert stop_after_delay(3)(attempts=1, elapsed_time=3.0, upcoming_sleep=0)
    assert retry_if_exception_type(KeyError)(error=KeyError())
