"""Keras 3 on torch: `default` as its documentation begins, `lean` without metrics or bar.

`layers` are Keras's own layers; `module` is the same torch module as everybody's, in Keras's
`TorchModuleWrapper`, so that only Keras's loop, loss and optimizer differ.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras  # type: ignore[import-not-found]
from contest import BATCH_SIZE, LR, MOMENTUM, Ask, Task, asking, compete
from torch import Tensor


def prepared(task: Task, *, layers: bool, lean: bool) -> Callable[[], Ask]:
    """Return one epoch of `model.fit` on the rows as tensors.

    Args:
        task: what to train on.
        layers: whether the net is of Keras's layers, else it is the wrapped torch module.
        lean: whether metrics and progress bar are off.
    """
    model = _of_layers(task) if layers else _of_module(task)
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=LR, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=None if lean else ["accuracy"],
    )

    def go() -> Ask:
        model.fit(
            task.inputs,
            task.targets,
            batch_size=BATCH_SIZE,
            epochs=1,
            verbose=0 if lean else "auto",
        )
        return asking(partial(model, training=False))

    return go


def _of_module(task: Task) -> Any:
    shape = tuple(task.inputs.shape[1:])
    return keras.Sequential([keras.Input(shape), keras.layers.TorchModuleWrapper(task.net())])


def _of_layers(task: Task) -> Any:
    layers, planes = keras.layers, {"data_format": "channels_first"}
    model = keras.Sequential(
        [
            keras.Input(tuple(task.inputs.shape[1:])),
            layers.Conv2D(6, 5, activation="relu", **planes),
            layers.MaxPooling2D(2, **planes),
            layers.Conv2D(16, 5, activation="relu", **planes),
            layers.MaxPooling2D(2, **planes),
            layers.Flatten(**planes),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.set_weights([_keras_order(tensor) for tensor in task.weights.values()])
    return model


def _keras_order(tensor: Tensor) -> Any:
    """Return a weight with the axes in Keras's order: (height, width, in, out), or (in, out)."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0).numpy()
    return tensor.T.numpy() if tensor.ndim == 2 else tensor.numpy()


if __name__ == "__main__":
    compete(
        "Keras",
        keras.__version__,
        {
            "layers": partial(prepared, layers=True, lean=False),
            "layers-lean": partial(prepared, layers=True, lean=True),
            "module": partial(prepared, layers=False, lean=False),
            "module-lean": partial(prepared, layers=False, lean=True),
        },
    )
