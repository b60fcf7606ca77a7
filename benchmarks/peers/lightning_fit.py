"""Lightning: `default` as its documentation begins, `lean` with `Trainer(barebones=True)`.

That flag is documented to turn off all that may impact raw speed. The loader is the fastest one.
"""

from __future__ import annotations

from collections.abc import Callable

import lightning  # type: ignore[import-not-found]
import torch
import torch.nn.functional as F
from contest import LR, MOMENTUM, Ask, Net, Task, asking, compete, fast_loader, plain_loader
from torch import Tensor


class Module(lightning.LightningModule):  # type: ignore[misc]
    """The net, its loss and its optimizer, as a `Trainer` takes them.

    Args:
        net: to be trained.
        logs: whether each step logs its loss, as the documentation's examples do.
    """

    def __init__(self, net: Net, *, logs: bool) -> None:
        super().__init__()
        self.net = net
        self.logs = logs

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        inputs, targets = batch
        loss = F.cross_entropy(self.net(inputs), targets)
        if self.logs:
            self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what steps the parameters."""
        return torch.optim.SGD(self.net.parameters(), lr=LR, momentum=MOMENTUM)


def default(task: Task) -> Callable[[], Ask]:
    """Return one epoch with the progress bar, the logger and the summary that come unasked."""
    net, loader = task.net(), plain_loader(task)
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, enable_checkpointing=False)
    module = Module(net, logs=True)

    def go() -> Ask:
        trainer.fit(module, loader)
        return asking(net)

    return go


def lean(task: Task) -> Callable[[], Ask]:
    """Return one epoch with every feature off that can be turned off."""
    net, loader = task.net(), fast_loader(task)
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, barebones=True)
    module = Module(net, logs=False)

    def go() -> Ask:
        trainer.fit(module, loader)
        return asking(net)

    return go


if __name__ == "__main__":
    compete("Lightning", lightning.__version__, {"default": default, "lean": lean})
