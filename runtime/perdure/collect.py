"""How many events of a stream a list parameter waits for: `Annotated[list[E], Collect(Take(3))]`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cardinality:
    """The root of All and Take."""


@dataclass(frozen=True)
class All(Cardinality):
    """All that arrive until the stream closes."""


@dataclass(frozen=True)
class Take(Cardinality):
    """The first n, or what there is when the stream closes earlier. Raises ValueError unless n >= 1."""

    n: int

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise ValueError(f"Take(n) needs an integer n >= 1, not {self.n!r}")


@dataclass(frozen=True)
class Collect:
    """Marks a `list[E]` parameter. A bare `list[E]` means `Collect(All())`."""

    cardinality: Cardinality = field(default_factory=All)
