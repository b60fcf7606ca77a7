"""The classic CIFAR-10 tutorial as people write it, timed whole; prints JSON.

python benchmarks/essay.py [--seed N] [--epochs N]

The baseline of the benchmarks: two convolutions, batches of 4 from a DataLoader of two workers,
each picture through PIL and the two transforms, SGD 0.001 with momentum 0.9 for two epochs, and
`loss.item()` at every step. The transforms do what torchvision 0.2x does, call by call, since it
has no build beside every torch. Nothing of the workbench is used but the data.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import workbench as wb
from workbench.devices import hardware


class ToTensor:
    """What makes a picture a tensor from 0 to 1, shaped (channels, H, W)."""

    def __call__(self, picture: Image.Image) -> Tensor:
        """Return the tensor of a picture."""
        image = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        image = image.view(picture.size[1], picture.size[0], 3)
        return image.permute((2, 0, 1)).contiguous().to(dtype=torch.get_default_dtype()).div(255)


class Normalize:
    """What takes a mean from each channel and divides by a standard deviation."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean, self.std = mean, std

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return a normalized copy."""
        tensor = tensor.clone()
        mean = torch.as_tensor(self.mean, dtype=tensor.dtype, device=tensor.device)
        std = torch.as_tensor(self.std, dtype=tensor.dtype, device=tensor.device)
        if (std == 0).any():
            raise ValueError("std holds a zero")
        return tensor.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


class Compose:
    """Several transforms, one after the other."""

    def __init__(self, transforms: list[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, picture: Any) -> Any:
        """Return what the last one makes of it."""
        for transform in self.transforms:
            picture = transform(picture)
        return picture


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Rows of uint8 pixels as a torch data set, each made a picture and transformed when asked."""

    def __init__(self, images: NDArray[np.uint8], targets: list[int]) -> None:
        self.images, self.targets = images, targets
        self.transform = Compose([ToTensor(), Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index])
        return self.transform(picture), self.targets[index]


class Net(nn.Module):
    """Convolution 6@5, pool, convolution 16@5, pool, then 120, 84 and 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return ten logits a picture."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        y: Tensor = self.fc3(x)
        return y


def loader(split: wb.Split, *, shuffle: bool) -> DataLoader[tuple[Tensor, int]]:
    """Return batches of four pictures, made by two workers."""
    pictures = Pictures(split.inputs.numpy(), split.targets.tolist())
    return DataLoader(pictures, batch_size=4, shuffle=shuffle, num_workers=2)


def train(net: Net, batches: DataLoader[tuple[Tensor, int]], epochs: int) -> None:
    """Train as the tutorial does, telling the running loss every 2,000 batches."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    for epoch in range(epochs):
        running_loss = 0.0
        for i, (inputs, labels) in enumerate(batches, 0):
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            if i % 2000 == 1999:
                told = f"[{epoch + 1}, {i + 1:5d}] loss: {running_loss / 2000:.3f}"
                print(told, file=sys.stderr, flush=True)
                running_loss = 0.0


def score(net: Net, batches: DataLoader[tuple[Tensor, int]]) -> float:
    """Return the share of pictures that are named rightly."""
    correct, total = 0, 0
    with torch.no_grad():
        for images, labels in batches:
            outputs = net(images)
            _, predicted = torch.max(outputs.data, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    return correct / total


def elapsed() -> float:
    """Return the seconds since the process began: what a reader waits for, imports included."""
    return time.time() - psutil.Process().create_time()


def main() -> None:
    """Run the program, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    data = wb.load("cifar10", validation=0)  # all 50,000 training rows, as the tutorial
    assert data.test is not None
    net = Net()
    train(net, loader(data.train, shuffle=True), asked.epochs)
    trained = elapsed()
    accuracy = score(net, loader(data.test, shuffle=False))
    found = {
        "seconds": elapsed(),
        "seconds_until_trained": trained,
        "test_accuracy": accuracy,
        "epochs": asked.epochs,
        "seed": asked.seed,
        "torch": torch.__version__,
        "hardware": hardware(),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
