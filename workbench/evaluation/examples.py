"""The rows of an evaluation as a table: what each is, what was said of it, and how wrong it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

__all__ = ["classified", "regressed"]


def classified(
    targets: Tensor,
    predicted: Tensor,
    classes: tuple[str, ...],
    chances: Tensor | None,
    losses: Tensor | None,
) -> pd.DataFrame:
    """Return row, true, predicted, p_true, p_predicted, loss and right, a row a row of the split.

    Args:
        targets: class indices, shaped (rows,).
        predicted: likewise.
        classes: the names.
        chances: shaped (rows, classes); where only labels are known, None leaves p and loss out.
        losses: the cross-entropy of each row in nats, shaped (rows,).
    """
    rows, names = np.arange(len(targets)), np.array(classes, dtype=object)
    table = {"row": rows, "true": names[targets.numpy()], "predicted": names[predicted.numpy()]}
    if chances is not None and losses is not None:
        table["p_true"] = chances[rows, targets].numpy()
        table["p_predicted"] = chances[rows, predicted].numpy()
        table["loss"] = losses.numpy()
    return pd.DataFrame({**table, "right": (targets == predicted).numpy()})


def regressed(targets: Tensor, outputs: Tensor) -> pd.DataFrame:
    """Return row, true, predicted and residual (true - predicted), a row a row of the split.

    Of several outputs, the columns of each bear its number: `true_0`, `predicted_0`, ...

    Args:
        targets: shaped (rows,) or (rows, outputs).
        outputs: shaped (rows, outputs).
    """
    true, said = targets.double().reshape(outputs.shape).numpy(), outputs.double().numpy()
    table = {"row": np.arange(len(true))}
    for i in range(true.shape[1]):
        end = f"_{i}" if true.shape[1] > 1 else ""
        table[f"true{end}"], table[f"predicted{end}"] = true[:, i], said[:, i]
        table[f"residual{end}"] = true[:, i] - said[:, i]
    return pd.DataFrame(table)
