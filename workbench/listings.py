"""`Listing`: what there is of one kind, oldest first, found by number, name, or a part of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol, Self, TypeVar, overload

from workbench.errors import RequestError, UnknownNameError

__all__ = ["Listing"]


class _Named(Protocol):
    """What has a name that no other of its kind has."""

    @property
    def name(self) -> str:
        """The name."""


_T = TypeVar("_T", bound=_Named)


class Listing(Sequence[_T]):
    """Things of one kind, indexed by number, name, unique prefix of one, or `"last"`.

    Args:
        things: oldest first.
    """

    kind: ClassVar[str]  # what one is called, for messages

    def __init__(self, things: Sequence[_T]) -> None:
        self._things = list(things)

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[_T]:
        return iter(self._things)

    @overload
    def __getitem__(self, key: int | str) -> _T: ...
    @overload
    def __getitem__(self, key: slice) -> Self: ...
    def __getitem__(self, key: int | str | slice) -> _T | Self:
        if isinstance(key, slice):
            return type(self)(self._things[key])
        return self._things[key] if isinstance(key, int) else self._named(key)

    def _named(self, name: str) -> _T:
        if name == "last" and self._things:
            return self._things[-1]
        found = [thing for thing in self._things if name and thing.name.startswith(name)]
        exact = [thing for thing in found if thing.name == name]
        if len(exact or found) > 1:
            names = ", ".join(thing.name for thing in found)
            raise RequestError(
                f"{self.kind} {name!r} is not one {self.kind} but {len(found)}: {names}; say more"
            )
        if not found:
            raise UnknownNameError(self.kind, name, [thing.name for thing in self._things])
        return (exact or found)[0]
