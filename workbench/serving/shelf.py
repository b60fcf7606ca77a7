"""The models of one server: by name and version, one version of a name being the default."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from workbench.errors import RequestError, TamperedError
from workbench.registry import resolve
from workbench.serving.answers import Refusal
from workbench.serving.served import Served
from workbench.serving.tallies import Tally

__all__ = ["Counters", "Shelf"]


@dataclass
class Counters:
    """What is counted of a name, whichever version answered.

    Args:
        requests: that asked for an inference.
        errors: those of them that were answered with an error.
        answered: those that were answered without one.
        seconds: that these took, from the whole request to its answer.
        refused: those that were not taken, by status.
    """

    requests: int = 0
    errors: int = 0
    answered: int = 0
    seconds: float = 0.0
    refused: Counter[int] = field(default_factory=Counter)


class Shelf:
    """Models by name and version. Each change is one assignment, so a request never sees half."""

    def __init__(self) -> None:
        self._defaults: dict[str, Served] = {}
        self._others: dict[tuple[str, str], Served] = {}
        self._loading: set[str] = set()
        self._tallies: dict[tuple[str, str], Tally] = {}
        self.counters: dict[str, Counters] = {}

    def __iter__(self) -> Iterator[Served]:
        """Yield all models, a name's default first."""
        for name in sorted({*self._defaults, *(name for name, _ in self._others)}):
            yield from self.versions(name)

    def __contains__(self, name: str) -> bool:
        return name in self._defaults

    @property
    def loading(self) -> bool:
        """Whether a model is on its way here."""
        return bool(self._loading)

    def versions(self, name: str) -> list[Served]:
        """Return a name's models, the default first."""
        default = self._defaults.get(name)
        others = [served for (other, _), served in self._others.items() if other == name]
        return [served for served in (default, *others) if served is not None]

    def put(self, served: Served) -> None:
        """Let a model answer for its name; the one before it goes."""
        self._others.pop((served.name, served.version), None)
        self._defaults[served.name] = served
        self.counters.setdefault(served.name, Counters())

    def add(self, served: Served) -> None:
        """Keep a model beside its name's default; without one it becomes that."""
        default = self._defaults.get(served.name)
        if default is None or default.version == served.version:
            self.put(served)
        else:
            self._others[served.name, served.version] = served

    def take(self, name: str, number: str | None = None) -> None:
        """Take a version of a name away, or all of them; what is not there is no matter."""
        default = self._defaults.get(name)
        if default is not None and number in (None, default.version):
            del self._defaults[name]
        for key in [key for key in self._others if key[0] == name and number in (None, key[1])]:
            del self._others[key]

    def find(self, name: str, number: str | None = None) -> Served:
        """Return what answers for a name.

        Args:
            name: of the model.
            number: a version in digits, or an alias of it in the registry; None for the default.

        Raises:
            Refusal: 404, it is not here; or 503, it is being loaded.
        """
        default = self._defaults.get(name)
        if default is not None and number in (None, default.version):
            return default
        here = self.versions(name)
        if not here and name in self._loading:
            raise Refusal(503, f"{name!r} is being loaded", headers={"Retry-After": "1"})
        if not here:
            names = dict.fromkeys(served.name for served in self)
            known = ", ".join(map(repr, names)) or "no model"
            raise Refusal(404, f"unknown model {name!r:.120}: this service has {known}")
        wanted = number if number is None or number.isdigit() else _meant(here[0], number)
        for served in here:
            if served.version == wanted:
                return served
        there = ", ".join(repr(served.version) for served in here)
        meant = "" if wanted == number else f", which is version {wanted}"
        raise Refusal(
            404, f"unknown version {number!r:.40}{meant} of {name!r}: this service has {there}"
        )

    def tally(self, served: Served) -> Tally:
        """Return where the answers of a model are counted."""
        return self._tallies.setdefault((served.name, served.version), Tally())

    def tallies(self, name: str) -> list[Tally]:
        """Return where the answers of a name are counted, whichever version gave them."""
        return [tally for (known, _), tally in self._tallies.items() if known == name]

    def forget(self, name: str) -> None:
        """Take a name away with all that was counted of it."""
        self.take(name)
        self.counters.pop(name, None)
        for key in [key for key in self._tallies if key[0] == name]:
            del self._tallies[key]

    @contextlib.contextmanager
    def on_the_way(self, name: str) -> Iterator[None]:
        """Say for the while that a model of that name is being loaded."""
        self._loading.add(name)
        try:
            yield
        finally:
            self._loading.discard(name)


def _meant(served: Served, alias: str) -> str | None:
    """Return the number of the version that an alias is on now, or None where there is none."""
    name, at, _ = served.model.partition("@")
    if not at:
        return None
    try:
        return str(resolve(f"{name}@{alias}")[1])
    except (RequestError, TamperedError):
        return None
