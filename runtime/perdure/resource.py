"""Resources that steps have injected: `Annotated[T, Resource(factory)]`."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class ResourceDescriptor(Protocol):
    """What in an Annotated makes a parameter an injected one."""

    @property
    def name(self) -> str: ...

    @property
    def cache(self) -> bool: ...

    async def call(self, manager: Any) -> Any: ...
