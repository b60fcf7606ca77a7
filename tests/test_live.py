"""The live handle: a training in a thread of a real kernel, steered by cells and from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import SETUP, Kernel
from torch import nn
from typer.testing import CliRunner

from workbench import Dataset, Training, fit, list_trainings
from workbench.cli import app
from workbench.errors import RequestError
from workbench.home import home, read_json


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def _kernel(place: Path) -> Iterator[Kernel]:
    kernel = Kernel({"WORKBENCH_HEADLESS": None, "WORKBENCH_HOME": str(place)})
    kernel.run(SETUP)
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(_kernel: Kernel, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """One kernel for all tests; this process looks at the same home."""
    monkeypatch.setenv("WORKBENCH_HOME", str(place))
    yield _kernel
    _kernel.run("for t in wb.list_trainings():\n    if t.is_going:\n        t.stop(); t.wait()")


def undisturbed(seconds: int = 0, **how: Any) -> tuple[Training, list[float]]:
    """Return what the same training comes to where nobody watches."""
    space: dict[str, Any] = {}
    exec(SETUP, space)
    model: nn.Module = space["Net"](seconds)
    data: Dataset = space["data"]
    training = fit(model, data, batch_size=8, **how)
    return training, space["sums"](model)


def assert_undisturbed(kernel: Kernel, training: str, model: str, **how: Any) -> None:
    """Fail where a training of the kernel has come to other bits than one that nobody touched."""
    whole, sums = undisturbed(**how)
    assert kernel.value(f"{training}.history.steps") == whole.history.steps
    assert kernel.value(f"{training}.history.epochs") == whole.history.epochs
    assert kernel.value(f"sums({model})") == sums


def until(what: Callable[[], bool]) -> None:
    for _ in range(1000):
        if what():
            return
        time.sleep(0.02)
    raise TimeoutError


def test_fit_returns_while_it_trains_and_comes_to_the_same(kernel: Kernel) -> None:
    kernel.run("model = Net(); training = wb.fit(model, data, epochs=60, batch_size=8, lr=0.05)")
    assert kernel.value("(training.state, 1 <= len(training.history) < 240)") == ("running", True)
    kernel.run("torch.rand(1000); torch.manual_seed(5); mine = torch.rand(3).tolist()")
    kernel.run("training.wait()")
    assert kernel.value("training.state") == "done"
    assert_undisturbed(kernel, "training", "model", epochs=60, lr=0.05)
    kernel.run("torch.manual_seed(5); assert mine == torch.rand(3).tolist()")


def test_a_training_leaves_the_cells_their_random_numbers(kernel: Kernel) -> None:
    kernel.run("torch.manual_seed(7); expected = torch.rand(4).tolist()")
    kernel.run("torch.manual_seed(7); training = wb.fit(Net(), data, epochs=2, batch_size=8)")
    kernel.run("found = torch.rand(2).tolist(); training.wait(); found += torch.rand(2).tolist()")
    assert kernel.value("found == expected")


def test_while_paused_the_model_answers_and_nothing_is_lost(kernel: Kernel) -> None:
    how = "epochs=10, batch_size=8, average='lookahead'"
    kernel.run(f"model = Net(); training = wb.fit(model, data, {how})")
    kernel.run("training.pause(); evaluation = wb.evaluate(model, data.train)")
    before = kernel.value("(training.state, len(training.history))")
    assert before[0] == "paused"
    assert list_trainings()[kernel.value("training.name")].state == "paused"
    time.sleep(0.1)
    assert kernel.value("(training.state, len(training.history))") == before
    kernel.run("wb.predict(model, X[:2]); training.unpause(); training.wait()")
    assert_undisturbed(kernel, "training", "model", epochs=10, average="lookahead")


def test_what_needs_the_model_waits_for_it(kernel: Kernel) -> None:
    kernel.run("model = Net(0.03); training = wb.fit(model, data, epochs=20, batch_size=8)")
    kernel.run("evaluation = wb.evaluate(model, data.train); state = training.state")
    assert kernel.value("state") == "done"
    said = [m["content"]["text"] for m in kernel.told() if m["msg_type"] == "stream"]
    assert any("is using the model: pause or stop it to go on now" in text for text in said)


def test_whatever_is_done_to_a_paused_model_is_undone(kernel: Kernel) -> None:
    kernel.run("model = Net(); training = wb.fit(model, data, epochs=10, batch_size=8)")
    kernel.run("training.pause(); wb.evaluate(model, data.train)")
    kernel.run("model.train(); model(X); model.eval(); training.checkpoints[0].load(model)")
    kernel.run("training.unpause(); training.wait()")
    assert_undisturbed(kernel, "training", "model", epochs=10)


def test_stop_keeps_the_best_weights(kernel: Kernel) -> None:
    kernel.run("model = Net(); training = wb.fit(model, data, epochs=500, batch_size=8, lr=0.05)")
    kernel.run("until(lambda: len(training.history.epochs) > 2); training.stop(); training.wait()")
    assert kernel.value("training.state") == "stopped"
    kernel.run("training.best.load(model); found = wb.evaluate(model, data.validation)")
    rows = kernel.value("training.history.epochs")
    least = min(row["validation_loss"] for row in rows if row["step"] % 4 == 0)
    assert kernel.value("float(found.loss)") == pytest.approx(least, rel=1e-5)


def test_interrupting_the_wait_ends_the_training_and_keeps_it(kernel: Kernel) -> None:
    kernel.run("training = wb.fit(Net(), data, epochs=500, batch_size=8)")
    waiting = kernel.start("print('waiting'); training.wait()")
    kernel.until_printed("waiting")
    time.sleep(0.3)
    kernel.interrupt()
    assert kernel.finish(waiting)["status"] == "ok"
    assert kernel.value("training.state") == "interrupted"
    assert kernel.value("training.checkpoint.step == len(training.history)")


GATED = """
gate = threading.Event()

class Gated(Net):
    calls = 0
    def forward(self, x):
        self.calls += self.training
        if self.calls > 1:
            gate.wait()
        return super().forward(x)
"""


def test_a_second_interrupt_raises(kernel: Kernel) -> None:
    kernel.run(GATED)
    kernel.run("training = wb.fit(Gated(), data, epochs=5, batch_size=8)")
    waiting = kernel.start("print('waiting'); training.wait()")
    kernel.until_printed("waiting")
    for _ in range(2):
        time.sleep(0.3)
        kernel.interrupt()
    assert kernel.finish(waiting)["ename"] == "KeyboardInterrupt"
    kernel.run("gate.set(); training.wait()")
    assert kernel.value("(training.state, training.checkpoint.step)") == ("interrupted", 2)


def test_it_is_extended_while_it_runs_and_afterwards(kernel: Kernel) -> None:
    kernel.run("model = Net(); training = wb.fit(model, data, steps=10, batch_size=8)")
    kernel.run("training.extend(steps=7); training.wait()")
    assert kernel.value("(training.state, len(training.history))") == ("done", 17)
    kernel.run("training.extend(epochs=2); state = training.state; training.wait()")
    assert kernel.value("(state, training.state, len(training.history))") == ("running", "done", 25)
    phases = kernel.value("[(p.planned, p.steps) for p in training.settings.phases]")
    assert phases == [(10, 10), (7, 7), (8, 8)]
    kernel.run("training.extend(steps=100)")
    assert "running is extended by epochs or steps" in kernel.error("training.extend(minutes=1)")


def test_two_at_once_do_not_disturb_each_other(kernel: Kernel) -> None:
    kernel.run("a, b = Net(), Net()")
    kernel.run("one = wb.fit(a, data, epochs=10, batch_size=8, seed=1)")
    kernel.run("two = wb.fit(b, data, epochs=10, batch_size=8, seed=2)")
    assert kernel.value("(one.state, two.state)") == ("running", "running")
    assert kernel.value("f'beside it {one.name} trains in this kernel' in two.notes[0]")
    kernel.run("one.wait(); two.wait()")
    for seed, name, model in ((1, "one", "a"), (2, "two", "b")):
        assert_undisturbed(kernel, name, model, epochs=10, seed=seed)


def test_two_at_once_have_threads_of_their_own(kernel: Kernel) -> None:
    """A wide net is trained by more of them than a small one, and they decide the last digits."""
    wide = "t = wb.fit(wb.build('mlp', data, hidden=(2048, 2048)), data, steps=40, batch_size=32)"
    kernel.run(f"{wide}; t.wait(); alone = t")
    kernel.run(f"{wide}; model = Net(); small = wb.fit(model, data, epochs=10, batch_size=8)")
    kernel.run("t.wait(); small.wait()")
    threads = kernel.value("(small.settings.threads, t.settings.threads)")
    assert threads == (1, min(2, threads[1]))
    assert kernel.value("t.history == alone.history")
    assert_undisturbed(kernel, "small", "model", epochs=10)


LOADER = """
class Shaken(torch.utils.data.Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, i):
        return X[i] + torch.randn(4), int(X[i, 0] > 0)

def loader():
    return torch.utils.data.DataLoader(Shaken(), batch_size=8, shuffle=True)
"""


def test_a_loader_that_draws_globally_is_undisturbed(kernel: Kernel) -> None:
    kernel.run(LOADER)
    kernel.run("model = Net(); training = wb.fit(model, loader(), epochs=4)")
    kernel.run("torch.manual_seed(3); drawn = [torch.rand(5) for _ in range(5)]; training.wait()")
    space: dict[str, Any] = {}
    exec(SETUP + LOADER, space)
    whole = fit(space["Net"](0), space["loader"](), epochs=4)
    assert kernel.value("training.history.steps") == whole.history.steps


def test_two_loaders_that_draw_globally_take_turns(kernel: Kernel) -> None:
    kernel.run(LOADER.replace("return X[i] +", "time.sleep(0.001); return X[i] +"))
    kernel.run("m1, m2 = Net(), Net()")  # first: their seeds are of the global generator
    for seed in (1, 2):
        kernel.run(f"t{seed} = wb.fit(m{seed}, loader(), epochs=3, seed={seed})")
    kernel.run("t1.wait(); t2.wait()")
    space: dict[str, Any] = {}
    exec(SETUP + LOADER, space)
    for seed in (1, 2):
        whole = fit(space["Net"](0), space["loader"](), epochs=3, seed=seed)
        assert kernel.value(f"t{seed}.history.steps") == whole.history.steps


def test_extended_on_the_way_then_killed_it_comes_to_the_same(kernel: Kernel, place: Path) -> None:
    """With an average that depends on the budget, which was smaller in the beginning."""
    how = "steps=30, batch_size=8, average='lookahead', name='longer'"
    kernel.run(f"model = Net(0.02); training = wb.fit(model, data, {how})")
    kernel.run("training.extend(steps=21); training.wait(); whole = sums(model)")
    for checkpoint in list_trainings()["longer"].checkpoints[1:]:
        checkpoint.path.unlink()  # as if it had been killed before the next
    kernel.run(f"model = Net(0); training = wb.fit(model, data, {how}, resume=True).wait()")
    assert kernel.value("len(training.history)") == 51
    assert kernel.value("sums(model) == whole")


def test_what_fails_at_once_is_raised_by_fit(kernel: Kernel) -> None:
    said = kernel.error("wb.fit(Net(), data, epochs=1, loss=lambda o, t: o.missing)")
    assert said.startswith("AttributeError")
    kernel.run("model = Net(); training = wb.fit(model, data, epochs=100, batch_size=8)")
    said = kernel.error("wb.fit(model, data, epochs=1)")
    name = kernel.value("training.name")
    assert f"is being trained by '{name}': stop() that training, or wait() for it" in said


def test_what_fails_later_is_raised_by_wait(kernel: Kernel) -> None:
    kernel.run("training = wb.fit(Net(), data, steps=50, batch_size=8, lr=1e30, optimizer='sgd')")
    assert kernel.error("training.wait()").startswith("DivergedError: the loss is")
    assert kernel.value("training.state") == "failed"


def test_the_worker_never_prints(kernel: Kernel) -> None:
    kernel.told()
    kernel.run("training = wb.fit(Net(), data, epochs=5, batch_size=8)")
    kernel.run("training.wait()")
    assert [m for m in kernel.told() if m["msg_type"] == "stream"] == []


def test_it_is_steered_from_another_process(kernel: Kernel) -> None:
    kernel.run("training = wb.fit(Net(), data, epochs=500, batch_size=8, name='far')")
    far = list_trainings()["far"]
    assert far.state == "running"
    far.pause()
    until(lambda: list_trainings()["far"].state == "paused")
    far.unpause()
    until(lambda: list_trainings()["far"].state == "running")
    done = CliRunner().invoke(app, ["stop", "far"])
    assert (done.exit_code, done.output[:21]) == (0, "far: Training stopped")
    assert kernel.value("training.state") == "stopped"
    far.refresh()
    assert kernel.value("training.history.steps") == far.history.steps
    assert kernel.value("training.history.epochs") == far.history.epochs


def test_a_training_whose_kernel_was_killed_is_found_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    kernel = Kernel({"WORKBENCH_HEADLESS": None})
    kernel.run(SETUP)
    how = "epochs=20, batch_size=8, name='night', checkpoint_every=0.1"
    kernel.run(f"training = wb.fit(Net(), data, {how})")
    until(lambda: len(list_trainings()["night"].history) > 20)
    kernel.kill()
    kernel.close()
    killed = list_trainings()["night"]
    assert (killed.state, killed.can_extend) == ("killed", False)
    whole, sums = undisturbed(epochs=20)
    n = len(killed.history)
    assert killed.history["loss"] == whole.history["loss"][:n]
    again, after = undisturbed(epochs=20, name="night", resume=True)
    assert (again.history, after) == (whole.history, sums)


def test_a_kernel_that_ends_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    kernel = Kernel({"WORKBENCH_HEADLESS": None})
    kernel.run(SETUP)
    kernel.run("training = wb.fit(Net(), data, epochs=500, batch_size=8, name='night')")
    kernel.client.shutdown()
    until(lambda: read_json(home() / "trainings/night/training.json")["state"] == "interrupted")
    kernel.close()
    assert list_trainings()["night"].checkpoint.step > 0  # type: ignore[union-attr]


def test_headless_it_blocks(kernel: Kernel) -> None:
    kernel.run("import os; os.environ['WORKBENCH_HEADLESS'] = '1'")
    kernel.run("training = wb.fit(Net(), data, steps=20, batch_size=8); state = training.state")
    kernel.run("del os.environ['WORKBENCH_HEADLESS']")
    assert kernel.value("state") == "done"


def test_trainings_are_listed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = undisturbed(epochs=1, name="one")
    undisturbed(epochs=1, name="two")
    found = list_trainings()
    assert [t.name for t in found] == ["one", "two"]
    assert found["on"].history == made.history
    assert found.table().loc["one", "step"] == 4
    assert "one: Training done: Net on points, 4 of 4 steps" in repr(found)
    listed = CliRunner().invoke(app, ["trainings"])
    assert listed.output == f"{found!r}\n"
    with pytest.raises(RequestError, match="unknown training 'three'"):
        found["three"]


def test_what_is_over_cannot_be_stopped() -> None:
    undisturbed(epochs=1, name="one")
    done = CliRunner().invoke(app, ["stop", "one"])
    assert isinstance(done.exception, RequestError)
    assert str(done.exception) == "training 'one' is done: there is nothing to stop"
    with pytest.raises(RequestError, match="'one' is done: there is nothing to pause"):
        list_trainings()["one"].pause()
    with pytest.raises(RequestError, match=r"no model to go on with.*name='one', resume=True"):
        list_trainings()["one"].extend(epochs=1)
