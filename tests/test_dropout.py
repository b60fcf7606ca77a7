"""Dropout from the training's own generator, and what is said where the global one is drawn on."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.datasets import Dataset, dataset
from workbench.training import Callback, Training, fit
from workbench.training.dropout import StepDraws, own_dropout

CPU = torch.device("cpu")


def points() -> Dataset:
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(40, 6, generator=draw)
    return dataset("points", train=(X, (X[:, 0] > 0).long()))


def net(layer: nn.Module | None = None) -> nn.Sequential:
    """Return a net with dropout, always with the same start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 16), layer or nn.Dropout(0.5), nn.Linear(16, 2))


def passed(layer: nn.Module, x: Tensor, *, seed: int = 0, step: int = 0) -> Tensor:
    """Return what a layer makes of `x` at a step of a training."""
    with own_dropout(layer, seed, CPU) as draws:
        assert draws is not None
        draws.step(step)
        answer: Tensor = layer(x)
    return answer


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_is_zeroed_and_the_mean_stays(p: float) -> None:
    x = torch.ones(400, 500)
    seen = passed(nn.Dropout(p), x)
    assert (seen == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert seen.mean().item() == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(seen.unique(), torch.tensor([0, 1 / (1 - p)]))


def test_all_or_nothing_may_be_dropped() -> None:
    x = torch.randn(4, 5)
    assert torch.equal(passed(nn.Dropout(1.0), x), torch.zeros(4, 5))
    assert torch.equal(passed(nn.Dropout(0.0), x), x)


def test_gradients_go_where_the_values_went() -> None:
    x = torch.randn(30, 7, requires_grad=True)
    seen = passed(nn.Dropout(0.4), x)
    seen.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (seen != 0) / 0.6)


@pytest.mark.parametrize(
    ("layer", "shape", "axes"),
    [(nn.Dropout1d, (50, 20, 3), 1), (nn.Dropout2d, (50, 20, 3, 2), 2),
     (nn.Dropout3d, (50, 20, 2, 3, 2), 3), (nn.Dropout1d, (20, 9), 1),
     (nn.Dropout2d, (20, 9, 4), 2)],
)  # fmt: skip
def test_whole_channels_are_dropped(layer: Any, shape: tuple[int, ...], axes: int) -> None:
    seen = passed(layer(0.5), torch.ones(shape)).flatten(-axes)
    dropped = (seen == 0).all(-1)
    assert torch.equal(dropped, (seen == 0).any(-1))
    assert 0.2 < dropped.float().mean().item() < 0.8
    assert (seen[~dropped] == 2).all()


def test_numbers_are_of_a_seed_and_a_step() -> None:
    x = torch.ones(20, 20)
    first = passed(nn.Dropout(), x)
    torch.rand(5)  # wherever the global generator stands
    assert torch.equal(passed(nn.Dropout(), x), first)
    assert not torch.equal(passed(nn.Dropout(), x, seed=1), first)
    assert not torch.equal(passed(nn.Dropout(), x, step=1), first)


def test_layers_of_one_step_get_other_numbers() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    seen = passed(model, torch.ones(40, 40))
    assert (seen != 0).float().mean().item() == pytest.approx(0.25, abs=0.04)


def test_seeds_leave_room_to_count_steps() -> None:
    for seed in range(50):
        draws = StepDraws(seed, CPU)
        draws.step(0)
        first = draws.generator.initial_seed()
        draws.step(10**12)
        assert draws.generator.initial_seed() == first + 10**12 < 2**63


def test_evaluation_passes_through() -> None:
    x = torch.randn(5, 5)
    assert torch.equal(passed(nn.Dropout(0.9).eval(), x), x)


def test_a_model_without_dropout_needs_no_numbers() -> None:
    with own_dropout(nn.Linear(2, 2), 0, CPU) as draws:
        assert draws is None


def leftovers(model: nn.Module) -> list[str]:
    """Return what was put into the layers themselves and should be a class's alone."""
    return [name for module in model.modules() for name in vars(module) if name == "forward"]


def test_layers_are_given_back_also_after_an_error() -> None:
    class Broken(nn.Dropout):
        pass

    model = nn.Sequential(nn.Dropout(), nn.Dropout2d(), Broken())
    with own_dropout(model, 0, CPU):
        assert len(leftovers(model)) == 2  # a class of one's own keeps its ways
    with pytest.raises(ZeroDivisionError), own_dropout(model, 0, CPU):
        raise ZeroDivisionError
    assert leftovers(model) == []


def test_a_model_has_nothing_left_after_a_training() -> None:
    model = net()
    fit(model, points(), steps=2)
    twin = copy.deepcopy(model).train()
    assert leftovers(model) == leftovers(twin) == []
    x = torch.ones(3, 6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = twin(x)
        torch.manual_seed(0)
        plain = net().train()
        plain.load_state_dict(model.state_dict())
        assert torch.equal(ours, plain(x))


def test_a_layer_used_twice_is_one_layer() -> None:
    shared = nn.Dropout(0.5)
    model = nn.Sequential(nn.Linear(6, 8), shared, nn.Linear(8, 2), shared)
    fit(model, points(), steps=2)
    assert leftovers(model) == []


class Draws(Callback):
    """Draws on the global generator, as another cell might."""

    def on_step(self, training: Training, step: int) -> None:
        torch.rand(step)


def test_draws_of_a_callback_change_nothing_and_are_said() -> None:
    alone, disturbed = net(), net()
    quiet = fit(alone, points(), epochs=3, batch_size=8)
    message = (
        "something drew from torch's global generator during this training, a callback or another "
        "cell; the training's own numbers do not depend on it"
    )
    with pytest.warns(UserWarning, match=message) as said:
        loud = fit(disturbed, points(), epochs=3, batch_size=8, callbacks=[Draws()])
    assert len(said) == 1
    assert quiet.history == loud.history
    assert all(map(torch.equal, alone.parameters(), disturbed.parameters()))


class Functional(nn.Module):
    """A net whose dropout is a function, with no layer to give a generator to."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(F.dropout(x, 0.5, self.training))
        return answer


def test_dropout_as_a_function_is_noticed_at_once() -> None:
    steps: list[int] = []

    class Counts(Callback):
        def on_step(self, training: Training, step: int) -> None:
            steps.append(step)

    message = "draws from torch's global generator, .*use nn.Dropout rather than F.dropout, and a"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=message):
            fit(Functional(), points(), steps=5, callbacks=[Counts()])
    assert steps == []  # it was said before the first step's callbacks
    with pytest.warns(UserWarning, match=message) as said:
        assert fit(Functional(), points(), epochs=2, batch_size=8).state == "done"
    assert len(said) == 1


def test_nothing_is_said_where_nobody_draws() -> None:
    assert fit(net(), points(), epochs=2, batch_size=8).state == "done"  # warnings are errors
