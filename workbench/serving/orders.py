"""What an administrator tells a service to do: load, unload, make a version the default, try one.

An order is JSON, so that each process of a service can be told the same by the ledger:

    {"do": "load", "ref": "net@4"}               beside the default
    {"do": "put", "ref": "net@4", "name": "net"} as the default
    {"do": "unload", "ref": "net@4"}             or all of "net"
    {"do": "challenge", "ref": "net@4", "name": "net", "mode": "shadow", "share": 1.0, "since": 7}
    {"do": "end challenge", "name": "net"}
    {"do": "mark"}                               nothing; what comes later has a greater number
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.errors import RequestError
from workbench.serving.answers import Refusal
from workbench.serving.served import Served, served_from
from workbench.serving.shelf import Challenge, Shelf
from workbench.types import JSON

__all__ = ["Orders"]


class Orders:
    """Carries orders out on a shelf; called by threads that may wait for a model.

    Args:
        shelf: of the server.
        load: returns a version of the registry by its reference and the name it is to have.
    """

    def __init__(
        self,
        shelf: Shelf,
        load: Callable[[str, str | None], Served] = lambda ref, name: served_from(ref, name=name),
    ) -> None:
        self._shelf, self._load = shelf, load

    def check(self, order: JSON) -> None:
        """Raise where an order cannot be carried out here; a version it needs is beside then.

        Raises:
            RequestError: there is no such version, or it takes or returns something else than the
                default of its name.
            Refusal: 409, the default of a name would go while another version is tried beside it.
            TamperedError: a file of it is not what was published.
        """
        if order["do"] == "unload":
            self._check_untried(order["ref"])
        if order["do"] in ("load", "put", "challenge"):
            served = self._served(order)
            if order["do"] == "challenge":
                _check_alike(self._shelf.find(served.name), served)
            if served not in self._shelf.versions(served.name):
                self._shelf.add(served)

    def carry_out(self, order: JSON) -> None:
        """Do what an order says, which was checked, here or by another process."""
        if order["do"] == "mark":
            return
        if order["do"] == "end challenge":
            self._shelf.end(order["name"])
        elif order["do"] == "unload":
            name, _, version = order["ref"].partition("@")
            self._shelf.take(name, version or None)
        else:
            served = self._served(order)
            if order["do"] == "challenge":
                told = {key: order[key] for key in ("mode", "share", "since")}
                self._shelf.begin(Challenge(served, **told))
            elif order["do"] == "put":
                self._shelf.put(served)
            else:
                self._shelf.add(served)

    def _check_untried(self, ref: str) -> None:
        """Raise where a challenger would be the default, the one that it is tried beside gone."""
        name, _, number = ref.partition("@")
        challenge = self._shelf.challenge(name)
        if challenge is not None and self._shelf.find(name).version == number:
            raise Refusal(
                409,
                f"{challenge.served.ref} is tried beside {ref}, and would answer in its place: "
                f"DELETE /models/{name}/challenger first",
            )

    def _served(self, order: JSON) -> Served:
        """Return the version that an order means: the one here, if it is here already."""
        ref, name = order["ref"], order.get("name")
        here, at, _ = ref.partition("@")
        for served in self._shelf.versions(name or here):
            if at and served.model == ref:
                return served
        with self._shelf.on_the_way(name or here):
            return self._load(ref, name)


def _check_alike(champion: Served, challenger: Served) -> None:
    """Raise where two versions cannot answer the same requests."""
    if champion.version == challenger.version:
        raise Refusal(409, f"{challenger.ref} is the default already: name another version to try")
    if champion.signature != challenger.signature or champion.classes != challenger.classes:
        raise RequestError(
            f"{challenger.ref} takes or returns something else than {champion.ref}: expected the "
            "same inputs, outputs and classes, so that both can answer one request"
        )
