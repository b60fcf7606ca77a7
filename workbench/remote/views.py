"""What a service said, as a person reads it: predictions, how a model does, how a challenger does.

Each is the service's own JSON with a short text for the eye; loads neither torch nor pandas.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.serving.tensors import Array
from workbench.types import JSON

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RemotePrediction", "Trial", "Vitals", "answers_table"]

_SHOWN = 5  # rows of a prediction, and figures of an alarm
_COLUMNS = ("id", "at", "version", "rows", "said", "seconds", "shadow", "shadow_said", "drawn")


@dataclass(frozen=True)
class RemotePrediction:
    """What a service says of some rows.

    Args:
        id: of the request, by which `feedback` can come later.
        model: the version that answered, `name@3`; `name@0` is a live model.
        rows: what was said of each, as it came.
    """

    id: str
    model: str
    rows: Sequence[JSON] = field(repr=False)

    @property
    def labels(self) -> list[str] | None:
        """The likeliest class of each row; None without classes."""
        return [row["label"] for row in self.rows] if self._has("label") else None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of `probabilities`."""
        return tuple(self.rows[0]["probabilities"]) if self._has("label") else ()

    @property
    def probabilities(self) -> Array | None:
        """The probability of each class, shaped (rows, classes); None without classes."""
        if not self._has("label"):
            return None
        return np.array([list(row["probabilities"].values()) for row in self.rows], float)

    @property
    def values(self) -> Array | None:
        """What a regression says, shaped (rows,) or (rows, outputs); None of anything else."""
        for name in ("value", "output"):
            if self._has(name) and not self._has("label"):
                return np.array([row[name] for row in self.rows], float)
        return None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        said = [_said(row) for row in self.rows[:_SHOWN]]
        more = "; ..." if len(self) > _SHOWN else ""
        return f"{self.model} of {len(self):,} rows: {'; '.join(said)}{more}"

    def _has(self, name: str) -> bool:
        return len(self.rows) > 0 and name in self.rows[0]


class Vitals(dict[str, Any]):
    """How a model does by what is known now: drift, live accuracy, and what it is tried against.

    It is the answer of `GET /models/NAME/monitor`.
    """

    def table(self) -> pd.DataFrame:
        """Return the population stability index of each figure, a row a window, oldest first."""
        import pandas as pd

        windows = self["windows"][::-1]
        until = pd.to_datetime([window["last"] for window in windows], unit="s", utc=True)
        rows = [{one["figure"]: one["psi"] for one in window["figures"]} for window in windows]
        return pd.DataFrame(rows, index=pd.Index(until, name="until"))

    def __repr__(self) -> str:
        facts = self._facts()
        width = max(len(name) for name, _ in facts)
        return "\n".join(f"{name:{width}}  {text}" for name, text in facts)

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._facts()
        )
        return f"<table>{''.join(rows)}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        facts = [
            ("model", self["model"] + (f" of run {self['run']}" if self["run"] else "")),
            ("drift", _drift_said(self["drift"], self["looking"])),
            ("labels", _figures_said(self["accuracy"])),
        ]
        facts += [
            (f"  {group}", _figures_said(told))
            for group, told in self["accuracy"]["groups"].items()
        ]
        if self["challenger"]:
            facts.append(("challenger", repr(Trial(self["challenger"]))))
        if self["log"]["dropped"]:
            facts.append(("not logged", f"{self['log']['dropped']:,} answers"))
        if self["log"]["trouble"]:
            facts.append(("trouble", self["log"]["trouble"]))
        return facts


class Trial(dict[str, Any]):
    """How a challenger does beside the champion, by the labels so far.

    It is the answer of `GET /models/NAME/challenger`.
    """

    def __repr__(self) -> str:
        how = "is asked the same as" if self["mode"] == "shadow" else "answers instead of"
        share = f"in {self['share']:.0%} of requests"
        return f"{self['challenger']} {how} {self['champion']} {share}: {self['reason']}"


def answers_table(answers: Iterable[JSON]) -> pd.DataFrame:
    """Return answers as a table, a row each, with the labels that came later."""
    import pandas as pd

    rows = [{**answer, **_later(answer["feedback"])} for answer in answers]
    table = pd.DataFrame(rows, columns=[*_COLUMNS, "labels", "group"])
    return table.assign(at=pd.to_datetime(table["at"], unit="s", utc=True))


def _later(feedback: JSON | None) -> JSON:
    told = feedback or {}
    return {"labels": told.get("labels"), "group": told.get("group")}


def _said(row: JSON) -> str:
    if "label" in row:
        sure = row["probabilities"][row["label"]]
        return row["label"] if sure is None else f"{row['label']} {sure:.0%}"
    if "value" in row:
        return "no number" if row["value"] is None else f"{row['value']:.4g}"
    return f"{row!s:.40}"


def _drift_said(window: JSON | None, looking: JSON | None) -> str:
    if looking is None:
        return "not known: nothing is kept of what the model was made for"
    if window is None:
        return f"not known yet: {looking['rows']:,} of the {looking['window']:,} rows of a window"
    alarms = [one for one in window["figures"] if one["alarm"]]
    if not alarms:
        return f"none in the last {window['rows']:,} rows"
    worst = sorted(alarms, key=lambda one: -one["psi"])[:_SHOWN]
    found = ", ".join(f"{one['figure']} {one['psi']:.2g}" for one in worst)
    rest = f" and {len(alarms) - _SHOWN} more" if len(alarms) > _SHOWN else ""
    return (
        f"ALARM in the last {window['rows']:,} rows, by PSI (from {worst[0]['threshold']:.2g} on): "
        f"{found}{rest}"
    )


def _figures_said(told: JSON) -> str:
    """Return accuracy or error with its interval in words."""
    if not told["labels"]:
        return "none yet"
    is_share = "accuracy" in told
    form = "{:.1%}" if is_share else "{:.4g}"
    figure = form.format(told["accuracy" if is_share else "error"])
    ends = [form.format(end) for end in told["interval"] or ()]
    lies = f" (95 %: {' to '.join(ends)})" if ends else ""
    what = "accuracy" if is_share else "mean absolute error"
    return f"{what} {figure}{lies} by {told['labels']:,} labels"
