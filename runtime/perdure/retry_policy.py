"""When a failed step is tried again: conditions, waits and stops, composed by `retry_policy`.

Durations are seconds or timedelta. Conditions and stops compose with `&` and `|`, waits with `+`; plain
callables of the same shape compose with them.
"""

from __future__ import annotations

import inspect
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias, runtime_checkable

time_unit_type: TypeAlias = int | float | timedelta
ExceptionTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


@dataclass
class RetryInfo:
    """Where a step stands in its retries. retry_number: 0 at the first attempt."""

    retry_number: int
    elapsed_seconds: float
    last_exception: Exception | None
    last_failed_at: datetime | None


@runtime_checkable
class RetryPolicy(Protocol):
    """Decides on a failed attempt."""

    def next(
        self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None
    ) -> float | None:
        """Seconds until the next attempt, or None to give up.

        elapsed_time: since the first attempt began. attempts: failures so far, 1 at the first.
        seed: makes jitter deterministic.
        """
        ...


@runtime_checkable
class RetryCondition(Protocol):
    """Whether this exception is worth another attempt."""

    def __call__(self, error: BaseException, /) -> bool: ...


@runtime_checkable
class WaitStrategy(Protocol):
    """Seconds to wait; `retry` is 0 before the first retry."""

    def __call__(self, retry: int, /, *, seed: int | None = None) -> float: ...


@runtime_checkable
class StopCondition(Protocol):
    """Whether to give up after `attempts` failures, `elapsed` seconds after the first began."""

    def __call__(self, attempts: int, elapsed: float, /, *, upcoming_sleep: float = 0.0) -> bool: ...


def seconds(duration: time_unit_type) -> float:
    """A duration as seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


# --- conditions ---------------------------------------------------------------------------------------


class _Condition:
    def __call__(self, error: BaseException) -> bool:
        raise NotImplementedError

    def __and__(self, other: Callable[[BaseException], bool]) -> retry_all:
        return retry_all(self, other)

    def __rand__(self, other: Callable[[BaseException], bool]) -> retry_all:
        return retry_all(other, self)

    def __or__(self, other: Callable[[BaseException], bool]) -> retry_any:
        return retry_any(self, other)

    def __ror__(self, other: Callable[[BaseException], bool]) -> retry_any:
        return retry_any(other, self)


@dataclass(frozen=True)
class retry_if_exception(_Condition):
    """Retry when `predicate(error)` is true."""

    predicate: Callable[[BaseException], bool]

    def __call__(self, error: BaseException) -> bool:
        return bool(self.predicate(error))


@dataclass(frozen=True)
class retry_if_exception_type(_Condition):
    """Retry on these types and their subclasses."""

    exception_types: ExceptionTypes = Exception

    def __call__(self, error: BaseException) -> bool:
        return isinstance(error, self.exception_types)


@dataclass(frozen=True)
class retry_if_not_exception_type(_Condition):
    """Retry on all but these types."""

    exception_types: ExceptionTypes = Exception

    def __call__(self, error: BaseException) -> bool:
        return not isinstance(error, self.exception_types)


class retry_unless_exception_type(retry_if_not_exception_type):
    """Retry until one of these types is raised."""


@dataclass(frozen=True)
class retry_if_exception_message(_Condition):
    """Retry when the message equals `message`, or `match` is found in it; give exactly one of them."""

    message: str | None = None
    match: str | re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        if (self.message is None) == (self.match is None):
            raise TypeError(f"{type(self).__name__} takes either 'message' or 'match', and exactly one")

    def __call__(self, error: BaseException) -> bool:
        if self.match is not None:
            return re.search(self.match, str(error)) is not None
        return str(error) == self.message


class retry_if_not_exception_message(retry_if_exception_message):
    """Retry unless the message is such."""

    def __call__(self, error: BaseException) -> bool:
        return not super().__call__(error)


@dataclass(frozen=True)
class retry_if_exception_cause_type(_Condition):
    """Retry when an exception that this one was raised `from`, however far, is of these types."""

    exception_types: ExceptionTypes = Exception

    def __call__(self, error: BaseException) -> bool:
        seen: set[int] = set()
        cause = error.__cause__
        while cause is not None and id(cause) not in seen:
            if isinstance(cause, self.exception_types):
                return True
            seen.add(id(cause))
            cause = cause.__cause__
        return False


class retry_any(_Condition):
    """Retry when any of the conditions holds."""

    def __init__(self, *retries: Callable[[BaseException], bool]) -> None:
        self.retries = retries

    def __call__(self, error: BaseException) -> bool:
        return any(retry(error) for retry in self.retries)


class retry_all(_Condition):
    """Retry when all of the conditions hold."""

    def __init__(self, *retries: Callable[[BaseException], bool]) -> None:
        self.retries = retries

    def __call__(self, error: BaseException) -> bool:
        return all(retry(error) for retry in self.retries)


class retry_always(_Condition):
    """Retry on anything."""

    def __call__(self, error: BaseException) -> bool:
        return True


class retry_never(_Condition):
    """Never retry."""

    def __call__(self, error: BaseException) -> bool:
        return False


# --- waits --------------------------------------------------------------------------------------------


class _Wait:
    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        raise NotImplementedError

    def __add__(self, other: Callable[..., float]) -> wait_combine:
        return wait_combine(self, other)

    def __radd__(self, other: Any) -> _Wait:
        # sum() begins with 0.
        return self if other == 0 else wait_combine(other, self)


@dataclass(frozen=True)
class wait_fixed(_Wait):
    """The same wait each time."""

    wait: time_unit_type

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        return seconds(self.wait)


class wait_none(wait_fixed):
    """No wait."""

    def __init__(self) -> None:
        super().__init__(0.0)


@dataclass(frozen=True)
class wait_exponential(_Wait):
    """`multiplier * exp_base ** attempts`, between min and max; the first wait is the multiplier."""

    multiplier: float = 1.0
    exp_base: float = 2.0
    max: time_unit_type = 60.0
    min: time_unit_type = 0.0

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        grown = _power(self.multiplier, self.exp_base, attempts, seconds(self.max))
        return max(seconds(self.min), grown)


@dataclass(frozen=True)
class wait_incrementing(_Wait):
    """`start + increment * attempts`, between 0 and max."""

    start: time_unit_type = 0.0
    increment: time_unit_type = 100.0
    max: time_unit_type = float("inf")

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        grown = seconds(self.start) + seconds(self.increment) * attempts
        return max(0.0, min(grown, seconds(self.max)))


@dataclass(frozen=True)
class wait_random(_Wait):
    """Anything between min and max."""

    min: time_unit_type = 0.0
    max: time_unit_type = 1.0

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        return _draw(seed, attempts).uniform(seconds(self.min), seconds(self.max))


@dataclass(frozen=True)
class wait_exponential_jitter(_Wait):
    """`initial * exp_base ** attempts` and up to `jitter` seconds more, at most max."""

    initial: float = 1.0
    exp_base: float = 2.0
    max: float = 60.0
    jitter: float = 1.0

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        grown = _power(self.initial, self.exp_base, attempts, self.max)
        return max(0.0, min(grown + _draw(seed, attempts).uniform(0, self.jitter), self.max))


@dataclass(frozen=True)
class wait_random_exponential(wait_exponential):
    """Anything between min and what wait_exponential gives: full jitter."""

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        return _draw(seed, attempts).uniform(seconds(self.min), super().__call__(attempts))


wait_full_jitter = wait_random_exponential


class wait_chain(_Wait):
    """One wait after the other; the last one repeats. Raises ValueError without any."""

    def __init__(self, *strategies: Callable[..., float]) -> None:
        if not strategies:
            raise ValueError("wait_chain requires at least one strategy")
        self.strategies = [_seedable(strategy) for strategy in strategies]

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        return self.strategies[min(attempts, len(self.strategies) - 1)](attempts, seed=seed)


class wait_combine(_Wait):
    """The sum of the waits."""

    def __init__(self, *strategies: Callable[..., float]) -> None:
        self.strategies = [_seedable(strategy) for strategy in strategies]

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        # Each strategy has draws of its own, else the jitters of a sum would all be the same.
        return sum(
            strategy(attempts, seed=None if seed is None else seed + index)
            for index, strategy in enumerate(self.strategies)
        )


# --- stops --------------------------------------------------------------------------------------------


class _Stop:
    def __call__(self, attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        raise NotImplementedError

    def __and__(self, other: Callable[..., bool]) -> stop_all:
        return stop_all(self, other)

    def __rand__(self, other: Callable[..., bool]) -> stop_all:
        return stop_all(other, self)

    def __or__(self, other: Callable[..., bool]) -> stop_any:
        return stop_any(self, other)

    def __ror__(self, other: Callable[..., bool]) -> stop_any:
        return stop_any(other, self)


@dataclass(frozen=True)
class stop_after_attempt(_Stop):
    """At most so many executions in all."""

    max_attempt_number: int

    def __call__(self, attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        return attempts >= self.max_attempt_number


@dataclass(frozen=True)
class stop_after_delay(_Stop):
    """No retry once so much time has passed since the first attempt began."""

    max_delay: time_unit_type

    def __call__(self, attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        return elapsed_time >= seconds(self.max_delay)


@dataclass(frozen=True)
class stop_before_delay(_Stop):
    """No retry that would begin so much time after the first attempt, or later."""

    max_delay: time_unit_type

    def __call__(self, attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        return elapsed_time + upcoming_sleep >= seconds(self.max_delay)


class stop_any(_Stop):
    """Stop when any of the conditions holds."""

    def __init__(self, *stops: Callable[..., bool]) -> None:
        self.stops = [_foresighted(stop) for stop in stops]

    def __call__(self, attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        return any(stop(attempts, elapsed_time, upcoming_sleep=upcoming_sleep) for stop in self.stops)


class stop_all(_Stop):
    """Stop when all of the conditions hold."""

    def __init__(self, *stops: Callable[..., bool]) -> None:
        self.stops = [_foresighted(stop) for stop in stops]

    def __call__(self, attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        return all(stop(attempts, elapsed_time, upcoming_sleep=upcoming_sleep) for stop in self.stops)


class stop_never(_Stop):
    """Never stop."""

    def __call__(self, attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        return False


# --- policies -----------------------------------------------------------------------------------------


class _ComposedPolicy:
    def __init__(
        self,
        retry: Callable[[BaseException], bool],
        wait: Callable[..., float],
        stop: Callable[..., bool],
    ) -> None:
        self.retry = retry
        self.wait = _seedable(wait)
        self.stop = _foresighted(stop)

    def next(
        self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None
    ) -> float | None:
        if not self.retry(error):
            return None
        delay = self.wait(attempts - 1, seed=seed)
        return None if self.stop(attempts, elapsed_time, upcoming_sleep=delay) else delay

    def __repr__(self) -> str:
        return f"retry_policy(retry={self.retry!r}, wait={self.wait!r}, stop={self.stop!r})"


def retry_policy(
    retry: Callable[[BaseException], bool] | None = None,
    wait: Callable[..., float] = wait_fixed(5),
    stop: Callable[..., bool] = stop_after_attempt(3),
) -> RetryPolicy:
    """A policy from a condition (default: any exception), a wait (5 s) and a stop (after 3 attempts)."""
    return _ComposedPolicy(retry if retry is not None else retry_if_exception_type(), wait, stop)


def ConstantDelayRetryPolicy(maximum_attempts: int = 3, delay: float = 5) -> RetryPolicy:
    """Deprecated: `retry_policy(wait=wait_fixed(delay), stop=stop_after_attempt(n))`."""
    warnings.warn(
        "ConstantDelayRetryPolicy is deprecated, use"
        " retry_policy(wait=wait_fixed(delay), stop=stop_after_attempt(n)) instead",
        DeprecationWarning,
        stacklevel=2,
    )
    return retry_policy(wait=wait_fixed(delay), stop=stop_after_attempt(maximum_attempts))


def ExponentialBackoffRetryPolicy(
    maximum_attempts: int = 5,
    initial_delay: float = 1.0,
    multiplier: float = 2.0,
    max_delay: float = 60.0,
    jitter: bool = True,
) -> RetryPolicy:
    """Deprecated: `retry_policy(wait=wait_exponential(...), stop=stop_after_attempt(n))`."""
    warnings.warn(
        "ExponentialBackoffRetryPolicy is deprecated, use"
        " retry_policy(wait=wait_exponential(...), stop=stop_after_attempt(n)) instead",
        DeprecationWarning,
        stacklevel=2,
    )
    kind = wait_random_exponential if jitter else wait_exponential
    wait = kind(multiplier=initial_delay, exp_base=multiplier, max=max_delay)
    return retry_policy(wait=wait, stop=stop_after_attempt(maximum_attempts))


# --- what they share ----------------------------------------------------------------------------------


def takes(function: Callable[..., Any], keyword: str) -> bool:
    """Whether `function` can be called with this keyword: policies written before it lack it."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values()) or (
        keyword in parameters and parameters[keyword].kind is not inspect.Parameter.POSITIONAL_ONLY
    )


def _seedable(wait: Callable[..., float]) -> Callable[..., float]:
    if takes(wait, "seed"):
        return wait

    def unseeded(retry: int, /, *, seed: int | None = None) -> float:
        return wait(retry)

    return unseeded


def _foresighted(stop: Callable[..., bool]) -> Callable[..., bool]:
    if takes(stop, "upcoming_sleep"):
        return stop

    def blind(attempts: int, elapsed: float, /, *, upcoming_sleep: float = 0.0) -> bool:
        return stop(attempts, elapsed)

    return blind


def _power(factor: float, base: float, exponent: int, limit: float) -> float:
    try:
        return min(factor * base**exponent, limit)
    except OverflowError:
        return limit


def _draw(seed: int | None, retry: int) -> random.Random:
    return random.Random() if seed is None else random.Random(f"{seed}/{retry}")
