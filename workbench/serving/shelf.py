"""The models of one server: by name and version, one version of a name being the default."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from workbench.errors import RequestError, TamperedError
from workbench.registry import resolve
from workbench.serving.answers import Refusal
from workbench.serving.served import Served
from workbench.serving.tallies import Tally
from workbench.types import JSON

__all__ = ["Challenge", "Counters", "Mode", "Shelf"]

Mode = Literal["shadow", "split"]


@dataclass(frozen=True)
class Challenge:
    """A version that is tried beside the default of its name.

    Args:
        served: the challenger.
        mode: `"shadow"`: it is asked what the default is asked, and nobody hears its answer;
            `"split"`: it answers a share of the requests that name no version.
        share: of the requests, above 0 and at most 1.
        since: the number in the ledger that the answers before it do not count by.
    """

    served: Served
    mode: Mode
    share: float
    since: int


@dataclass
class Counters:
    """What is counted of a name, whichever version answered.

    Args:
        requests: that asked for an inference.
        errors: those of them that were answered with an error.
        answered: those that were answered without one.
        seconds: that these took, from the whole request to its answer.
        refused: those that were not taken, by status.
        statuses: all of them, by the status of the answer.
    """

    requests: int = 0
    errors: int = 0
    answered: int = 0
    seconds: float = 0.0
    refused: Counter[int] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)

    def counts(self) -> JSON:
        """Return all of it as JSON that `added` adds up with that of other processes."""
        told = {name: value for name, value in vars(self).items() if not isinstance(value, Counter)}
        refused, statuses = (
            {str(status): count for status, count in dict(counter).items()}
            for counter in (self.refused, self.statuses)
        )
        return {**told, "refused": refused, "statuses": statuses}


class Shelf:
    """Models by name and version.

    Each change makes a new table and puts it there at once, so whoever looks, from whichever
    thread, sees the table before it or the one after.
    """

    def __init__(self) -> None:
        self._models: dict[str, tuple[Served, ...]] = {}  # a name's default first
        self._challenges: dict[str, Challenge] = {}
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._loading: Counter[str] = Counter()
        self._changing = threading.Lock()  # two changes at once, each from the table before
        self.counters: dict[str, Counters] = {}

    def __iter__(self) -> Iterator[Served]:
        """Yield all models, a name's default first."""
        models = self._models
        for name in sorted(models):
            yield from models[name]

    def __contains__(self, name: str) -> bool:
        return name in self._models

    @property
    def loading(self) -> frozenset[str]:
        """The names of which a model is on its way here."""
        return frozenset(self._loading)

    def versions(self, name: str) -> list[Served]:
        """Return a name's models, the default first."""
        return list(self._models.get(name, ()))

    def put(self, served: Served) -> None:
        """Let a model answer for its name; the one before it goes."""
        self.counters.setdefault(served.name, Counters())
        with self._changing:
            _, *others = self._models.get(served.name, (None,))
            self._change(served.name, [served, *_without(others, served.version)])

    def add(self, served: Served) -> None:
        """Keep a model beside its name's default; without one it becomes that."""
        self.counters.setdefault(served.name, Counters())
        with self._changing:
            here = self.versions(served.name)
            if here and here[0].version != served.version:
                self._change(served.name, [*_without(here, served.version), served])
            else:
                self._change(served.name, [served, *here[1:]])

    def take(self, name: str, number: str | None = None) -> None:
        """Take a version of a name away, or all of them; what is not there is no matter.

        Where the default goes, the highest version that is left is the default from then on.
        """
        with self._changing:
            here = self.versions(name)
            left = [] if number is None else _without(here, number)
            if left and left[0] is not here[0]:
                left.sort(key=lambda served: int(served.version), reverse=True)
            self._change(name, left)

    def find(self, name: str, number: str | None = None) -> Served:
        """Return what answers for a name.

        Args:
            name: of the model.
            number: a version in digits, or an alias of it in the registry; None for the default.

        Raises:
            Refusal: 404, it is not here; or 503, it is being loaded.
        """
        here = self.versions(name)
        if here and number in (None, here[0].version):
            return here[0]
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

    def challenge(self, name: str) -> Challenge | None:
        """Return what is tried beside a name's default, if anything is."""
        return self._challenges.get(name)

    def begin(self, challenge: Challenge) -> None:
        """Try a version beside the default of its name, in the place of any other."""
        self.add(challenge.served)
        with self._changing:
            self._challenges = {**self._challenges, challenge.served.name: challenge}

    def end(self, name: str) -> None:
        """Try nothing beside a name's default any more; what was tried answers by its number."""
        with self._changing:
            self._challenges = {k: c for k, c in self._challenges.items() if k != name}

    def tally(self, served: Served) -> Tally:
        """Return where the answers of a model are counted."""
        key = served.name, served.version
        with self._changing:
            if key not in self._tallies:
                self._tallies = {**self._tallies, key: Tally()}
            return self._tallies[key]

    def counts(self) -> JSON:
        """Return what was counted so far: by name, and by name and version."""
        models: JSON = {}
        for (name, number), tally in self._tallies.items():
            models.setdefault(name, {})[number] = tally.counts()
        names = {name: counters.counts() for name, counters in list(self.counters.items())}
        return {"names": names, "models": models}

    def forget(self, name: str) -> None:
        """Take a name away with all that was counted of it."""
        self.take(name)
        self.counters.pop(name, None)
        with self._changing:
            self._tallies = {key: t for key, t in self._tallies.items() if key[0] != name}

    @contextlib.contextmanager
    def on_the_way(self, name: str) -> Iterator[None]:
        """Say for the while that a model of that name is being loaded, perhaps one of several."""
        with self._changing:
            self._loading = self._loading + Counter([name])
        try:
            yield
        finally:
            with self._changing:
                self._loading = self._loading - Counter([name])  # what came to none goes

    def _change(self, name: str, here: Sequence[Served]) -> None:
        """Let these be a name's models; none of them, and the name goes."""
        others = {known: models for known, models in self._models.items() if known != name}
        self._models = {**others, name: tuple(here)} if here else others
        tried = self._challenges.get(name)
        if tried and tried.served not in here[1:]:  # it is gone, or the default itself by now
            self._challenges = {k: c for k, c in self._challenges.items() if k != name}


def _without(models: Sequence[Served], number: str) -> list[Served]:
    return [served for served in models if served.version != number]


def _meant(served: Served, alias: str) -> str | None:
    """Return the number of the version that an alias is on now, or None where there is none."""
    name, at, _ = served.model.partition("@")
    if not at:
        return None
    try:
        return str(resolve(f"{name}@{alias}")[1])
    except (RequestError, TamperedError):
        return None
