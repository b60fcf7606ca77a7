"""`connect`: all that a service offers over HTTP, from wherever there is its address and a token.

Loads no torch.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

from workbench.errors import RequestError
from workbench.remote.jobs import JobListing, RemoteJob
from workbench.remote.views import RemotePrediction, Trial, Vitals, answers_table
from workbench.remote.wire import Wire
from workbench.types import JSON

if TYPE_CHECKING:
    import pandas as pd

    from workbench.pictures import Picture
    from workbench.widgets import ServiceView

__all__ = ["RemoteService", "connect"]


def connect(url: str, token: str, *, timeout: float = 60.0) -> RemoteService:
    """Return a service that runs elsewhere, once it has answered.

    Args:
        url: root of its server, as the service prints it.
        token: what requests carry; what changes a service, and jobs, need the administrator's.
        timeout: seconds to wait for each answer.

    Raises:
        RequestError: the address is none, or the service does not take the token.
        ServiceError: nothing answers there, or something else does.
    """
    service = RemoteService(Wire(url, token, timeout=timeout))
    service.models()
    return service


class RemoteService:
    """A service that is asked over HTTP. Made by `connect`.

    Every method raises a `RequestError` with the service's reason where the service refuses, the
    `UnknownNameError` among them where a name does not exist there, and a `ServiceError` where it
    fails or is not reached. Methods about one model take its name as `model`, which may be left out
    where the service has one only.

    Args:
        wire: to the server.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._names: list[str] = []  # of the models, when they were asked for last

    @property
    def url(self) -> str:
        """Root of the server, without the token."""
        return self._wire.url

    def models(self) -> list[str]:
        """Return the names of the models that it has."""
        self._names = list(self._wire.ask("GET", "/v2/models")["models"])
        return self._names

    def predict(
        self, rows: Any, model: str | None = None, version: str | int | None = None
    ) -> RemotePrediction:
        """Return what the service says of raw rows.

        Args:
            rows: an array, tensor or nested list, shaped (rows, ...), or one row; a DataFrame, by
                the names of its columns; objects by such names, texts, or the bytes of PNG or JPEG
                files.
            model: its name.
            version: a number or an alias; None for the one that answers by default.
        """
        named = "" if version is None else f"/versions/{quote(str(version), safe='')}"
        path = self._path(model, f"{named}/predict")
        told = self._wire.ask("POST", path, _files(rows))
        return RemotePrediction(told["id"], told["model"], told["rows"])

    def feedback(
        self,
        answer: RemotePrediction | str,
        label: Any,
        group: str | None = None,
        *,
        model: str | None = None,
    ) -> int:
        """Tell what rows turned out to be, and return how many labels were kept by that.

        Args:
            answer: to those rows, or its id.
            label: a class's name, or a number where the model says numbers; of several rows a list.
            group: of the rows, to look at their accuracy apart.
            model: the name of what answered, beside an id.
        """
        identity = answer
        if isinstance(answer, RemotePrediction):
            identity, model = answer.id, answer.model.partition("@")[0]
        told = {"id": identity, "label": label, **({} if group is None else {"group": group})}
        return int(self._wire.ask("POST", self._path(model, "/feedback"), told)["labels"])

    def stats(self) -> dict[str, JSON]:
        """Return what was counted of each version, by `name@3`, since the service began.

        Requests that were `answered` and that `failed`, the `mean_seconds` of the former (None
        before any), and how many `rows` the model was asked in how many `batches`.
        """
        told = self._wire.ask("GET", "/v2/models/stats")["model_stats"]
        return {f"{one['name']}@{one['version']}": _counted(one) for one in told}

    def metrics(self) -> str:
        """Return all that was counted, as Prometheus reads it."""
        return self._wire.reply("GET", "/metrics").body.decode()

    def monitor(self, model: str | None = None) -> Vitals:
        """Return how a model does: drift, live accuracy, and what it is tried against."""
        return Vitals(self._wire.ask("GET", self._path(model, "/monitor")))

    def answers(
        self, last: int = 100, *, model: str | None = None, version: str | None = None
    ) -> pd.DataFrame:
        """Return the last answers as a DataFrame, newest first, with the labels that came later.

        Args:
            last: how many at most, up to 10,000; fewer come where they have very many rows.
            model: its name.
            version: only of this one, in digits.
        """
        asked = urlencode({"last": last, **({} if version is None else {"version": version})})
        path = self._path(model, f"/answers?{asked}")
        return answers_table(self._wire.ask("GET", path)["answers"])

    def challenge(
        self,
        version: str | int,
        mode: Literal["shadow", "split"] = "shadow",
        share: float = 1.0,
        *,
        model: str | None = None,
    ) -> Trial:
        """Try a version beside the one that answers; needs the administrator's token.

        Args:
            version: the challenger, by its number, an alias, or its whole reference, as a job's
                `published` has it.
            mode: `"shadow"`: it is asked the same, and its answers are only noted; `"split"`: it
                answers a part of the requests.
            share: of the requests, above 0, at most 1.
            model: its name.
        """
        name, _, number = str(version).rpartition("@")
        if name and model not in (None, name):
            raise RequestError(f"version is {version!r:.120}: expected one of {model!r}")
        model = model or name or None
        told = {"version": number, "mode": mode, "share": share}
        return Trial(self._wire.ask("PUT", self._path(model, "/challenger"), told))

    def challenger(self, model: str | None = None) -> Trial:
        """Return how the challenger does so far, by the labels that came."""
        return Trial(self._wire.ask("GET", self._path(model, "/challenger")))

    def end_challenge(self, model: str | None = None) -> None:
        """Try nothing any more; needs the administrator's token."""
        self._wire.ask("DELETE", self._path(model, "/challenger"))

    def promote(
        self,
        p: float = 0.05,
        labels: int = 1000,
        alias: str | None = None,
        *,
        model: str | None = None,
    ) -> str:
        """Let the challenger answer from now on, if it does better; return its `name@4`.

        Needs the administrator's token.

        Args:
            p: how likely the difference may be by chance, at most.
            labels: the first so many of the trial decide.
            alias: that is moved to it; by default the one that the service answers for.
            model: its name.

        Raises:
            RequestError: it is not shown to be better; the reason says by which figures.
        """
        told = {"p": p, "labels": labels, **({} if alias is None else {"alias": alias})}
        path = self._path(model, "/challenger/promote")
        return str(self._wire.ask("POST", path, told)["promoted"])

    def rollback(self, alias: str | None = None, why: str = "", *, model: str | None = None) -> str:
        """Let an alias be on the version before again, and that answer; return its `name@3`.

        Needs the administrator's token.

        Args:
            alias: to move back; by default the one that the service answers for.
            why: for its log.
            model: its name.
        """
        told = {"why": why, **({} if alias is None else {"alias": alias})}
        return str(self._wire.ask("POST", self._path(model, "/rollback"), told)["now"])

    def notebooks(self) -> dict[str, JSON]:
        """Return the notebooks that can be run, and a JSON Schema of what each takes.

        Needs the administrator's token, as all about jobs.
        """
        told = self._wire.ask("GET", "/jobs/notebooks")["notebooks"]
        return {one["notebook"]: one["parameters"] for one in told}

    def train(self, notebook: str, /, **parameters: Any) -> RemoteJob:
        """Have a notebook run where the service is; return its job at once.

        Args:
            notebook: its name, one of `notebooks`.
            parameters: of the notebook, where its own defaults are not meant.
        """
        told = {"notebook": notebook, "parameters": parameters}
        return RemoteJob(self._wire, self._wire.ask("POST", "/jobs", told))

    def jobs(self) -> JobListing:
        """Return the last 100 jobs, oldest first, found by number, id or `"last"`."""
        told = self._wire.ask("GET", "/jobs")["jobs"]
        return JobListing([RemoteJob(self._wire, one) for one in reversed(told)])

    def show(self, model: str | None = None) -> ServiceView | Picture:
        """Return a live view: traffic, drift, the last requests, and what can be done from here.

        Where no page lives, headless or in a script, it is a picture.

        Args:
            model: its name.
        """
        from workbench.widgets import service

        return service(self, model)

    def __repr__(self) -> str:
        return f"RemoteService at {self.url}: {', '.join(self._names) or 'no model yet'}"

    def _path(self, model: str | None, rest: str) -> str:
        return f"/models/{quote(self._one() if model is None else model, safe='')}{rest}"

    def _one(self) -> str:
        """Return the name of the only model.

        Raises:
            RequestError: there is another number of them.
        """
        names = self._names if len(self._names) == 1 else self.models()
        if len(names) != 1:
            found = f"has {len(names)} models, {', '.join(names)}" if names else "has no model"
            raise RequestError(f"the service at {self.url} {found}: say which, model='NAME'")
        return names[0]


def _files(rows: Any) -> Any:
    """Return rows with the bytes of pictures' files among them as JSON can say them."""
    if isinstance(rows, list):
        return [_files(row) for row in rows] if any(isinstance(r, bytes) for r in rows) else rows
    return {"b64": b64encode(rows).decode()} if isinstance(rows, bytes) else rows


def _counted(told: JSON) -> JSON:
    """Return the statistics of a version in the words of `stats`."""
    success, fail = (told["inference_stats"][kind] for kind in ("success", "fail"))
    answered = success["count"]
    return {
        "answered": answered,
        "failed": fail["count"],
        "mean_seconds": success["ns"] / answered / 1e9 if answered else None,
        "rows": told["inference_count"],
        "batches": told["execution_count"],
    }
