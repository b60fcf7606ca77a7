"""Bugs that are often written, each planted into a notebook by replacing one text of one cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """One planted bug."""

    slug: str
    old: str  # there once in the notebook's code
    new: str
    raises: type[Exception] = AssertionError
    quick: bool = False  # whether `make test` plants it; `make full` plants all


MUTANTS: Mapping[str, Sequence[Mutant]] = {
    "01_linear_regression": (
        Mutant(
            "sign-of-the-slope",
            "slope = -2 / len(y) * x[:, 0]",
            "slope = 2 / len(y) * x[:, 0] * 1.0",
        ),
        Mutant(
            "sign-of-the-gradient",
            "return -2 / len(y) * X.T",
            "return 2 / len(y) * X.T",
            quick=True,
        ),
        Mutant("sign-of-the-step", "path[-1] - alpha * gradient", "path[-1] + alpha * gradient"),
        Mutant("sum-for-mean", "return -2 / len(y) * X.T", "return -2 * X.T"),
        Mutant(
            "bias-dropped",
            "X = np.column_stack([np.ones(len(x)), x])",
            "X = np.column_stack([0 * x, x])",
            quick=True,
        ),
        Mutant(
            "bias-dropped-on-patients",
            "np.column_stack([np.ones(354),",
            "np.column_stack([np.zeros(354),",
        ),
        Mutant("stopped-at-once", "> tolerance and step < limit", "< tolerance and step < limit"),
        Mutant(
            "halved-loss-same-rate", "halved[-1] - 2 * alpha * slope", "halved[-1] - alpha * slope"
        ),
        Mutant(
            "one-handful-for-all-steps",
            "draw.integers(len(y), size=(steps, size)) if",
            "np.tile(draw.integers(len(y), size=size), (steps, 1)) if",
        ),
        Mutant("rate-never-falls", "0.005 / (1 + np.arange(30_000) / 1000)", "[0.005] * 30_000"),
        Mutant(
            "scaling-forgotten",
            '"standardized": centred / centred.std(0)',
            '"standardized": centred',
            quick=True,
        ),
        Mutant(
            "scaling-by-test-rows",
            "(test_raw - raw.mean(0)) / raw.std(0)",
            "(test_raw - test_raw.mean(0)) / test_raw.std(0)",
        ),
        Mutant(
            "baseline-of-test-rows",
            "np.full(88, t.mean())",
            "np.full(88, diabetes.test.targets.mean())",
        ),
        Mutant(
            "train-rows-evaluated",
            "evaluation = wb.evaluate(model, diabetes.test)",
            "evaluation = wb.evaluate(model, diabetes.train)",
        ),
        Mutant(
            "scaling-twice-when-served",
            "served = service.predict(patients)",
            "served = service.predict((patients - raw.mean(0)) / raw.std(0))",
        ),
        Mutant(
            "broadcast-targets",
            "y = line.train.targets.numpy().astype(float)",
            "y = line.train.targets.numpy().astype(float)[:, None]",
        ),
    ),
    "02_binary_classifier": (
        Mutant(
            "malignant-is-not-positive",
            'order = ("benign", "malignant")',
            'order = ("malignant", "benign")',
        ),
        Mutant("copies-are-not-dropped", "unique = dirty.drop_duplicates()", "unique = dirty"),
        Mutant(
            "scaling-by-all-rows",
            "mean, std = X.mean(0), X.std(0)",
            "mean, std = (seen := np.vstack([X, eight.test.inputs.numpy()])).mean(0), seen.std(0)",
        ),
        Mutant(
            "scaling-left-out",
            "z = forward(x_validation, *weights)[-1]",
            "z = forward(eight.validation.inputs.double().numpy(), *weights)[-1]",
        ),
        Mutant(
            "columns-are-chosen-on-all-rows",
            "for seen in ((rows, labels), (a, labels_a)):",
            "for seen in ((rows, labels), (rows, labels)):",
        ),
        Mutant("bias-dropped", "a = x @ W1.T + b1  # (N, 10)", "a = x @ W1.T  # (N, 10)"),
        Mutant(
            "loss-without-its-second-term",
            "return -(y * np.log(p) + (1 - y) * np.log(1 - p))",
            "return -y * np.log(p)",
        ),
        Mutant(
            "sign-of-the-gradient",
            "dz = (sigmoid(z) - y) / len(y)",
            "dz = (y - sigmoid(z)) / len(y)",
        ),
        Mutant("gradient-of-the-sum", "dz = (sigmoid(z) - y) / len(y)", "dz = sigmoid(z) - y"),
        Mutant("relu-is-not-differentiated", "(dz @ w2) * (a > 0)", "dz @ w2"),
        Mutant(
            "broadcast-in-the-loss",
            "y_validation = eight.validation.targets.double().numpy()[:, None]",
            "y_validation = eight.validation.targets.double().numpy()",
            quick=True,
        ),
        Mutant(
            "double-sigmoid",
            "F.binary_cross_entropy_with_logits(logit, torch.tensor(y_train))",
            "F.binary_cross_entropy_with_logits(logit.sigmoid(), torch.tensor(y_train))",
            quick=True,
        ),
        Mutant(
            "argmax-of-one-column",
            "decided = p > 0.5",
            "decided = p.argmax(1, keepdim=True) == 1",
            quick=True,
        ),
        Mutant(
            "broadcast-in-the-accuracy",
            "one_by_one = decided[:, 0] == (y == 1)",
            "one_by_one = decided == (y == 1)",
        ),
        Mutant("state-not-loaded", "again.load_state_dict(state)\n", ""),
        Mutant(
            "keras-start-of-torch",
            'edge = (6 / (n_in + n_out)) ** 0.5 if rule == "keras" else n_in**-0.5',
            "edge = n_in**-0.5",
        ),
        Mutant(
            "epsilon-of-torch-in-keras",
            'group["eps"] = 1e-7 / (1 - 0.999**self.steps) ** 0.5',
            'group["eps"] = 1e-7',
        ),
        Mutant(
            "precision-for-recall",
            "P, R = tp / (tp + fp), tp / (tp + fn)",
            "P, R = tp / (tp + fn), tp / (tp + fp)",
        ),
        Mutant(
            "arithmetic-f1",
            'means["F1"] = 2 / (1 / means["precision"] + 1 / means["recall"])',
            'means["F1"] = means["arithmetic mean"]',
        ),
        Mutant(
            "price-the-wrong-way-round",
            "return np.mean((said & ~ill) + miss * (~said & ill))",
            "return np.mean((~said & ill) + miss * (said & ~ill))",
        ),
        Mutant(
            "train-rows-as-test",
            "final = wb.evaluate(model, part.test)",
            "final = wb.evaluate(model, part.train)",
        ),
        Mutant(
            "threshold-the-wrong-way-round",
            "priced = final.scaled(T).at(theory)",
            "priced = final.scaled(T).at(1 - theory)",
        ),
    ),
    "03_image_mlp": (
        Mutant(
            "softmax-in-the-net",
            'net = wb.build("mlp", data, hidden=(64, 64), seed=seed)',
            'net = wb.build("mlp", data, seed=seed)\nnet.layers.append(nn.Softmax(dim=1))',
        ),
        Mutant(
            "softmax-forgotten-in-the-probabilities",
            "p = z.exp() / z.exp().sum(1, keepdim=True)",
            "p = z.exp()",
            quick=True,
        ),
        Mutant(
            "softmax-over-the-rows", "z.exp().sum(1, keepdim=True)", "z.exp().sum(0, keepdim=True)"
        ),
        Mutant(
            "softmax-once-where-twice-is-said",
            "F.cross_entropy(F.softmax(z, dim=1), y)",
            "F.cross_entropy(z, y)",
            quick=True,
        ),
        Mutant("sign-of-the-loss", "by_hand = -p[", "by_hand = p[", quick=True),
        Mutant("sum-for-mean", "some.targets].log().mean()", "some.targets].log().sum()"),
        Mutant(
            "bias-dropped",
            "nn.Linear(n_in, n_out), nn.ReLU()",
            "nn.Linear(n_in, n_out, bias=False), nn.ReLU()",
        ),
        Mutant(
            "scaling-forgotten",
            "given_as(lambda x: (x - mean) / std)",
            "given_as(lambda x: x)",
        ),
        Mutant(
            "scaling-without-the-mean",
            "given_as(lambda x: (x - mean) / std)",
            "given_as(lambda x: x / std)",
        ),
        Mutant(
            "zero-start-of-the-classic-net",
            "training = wb.fit(net, data, epochs",
            "_ = [nn.init.zeros_(w) for w in net.parameters()]\n"
            "training = wb.fit(net, data, epochs",
        ),
        Mutant(
            "equal-start-where-zero-is-said",
            "nn.init.zeros_(weight)\nx = ",
            "nn.init.constant_(weight, 0.01)\nx = ",
        ),
        Mutant(
            "zero-start-where-equal-is-said",
            "nn.init.constant_(weight, 0.01)",
            "nn.init.zeros_(weight)",
        ),
        Mutant(
            "kaiming-without-its-two",
            'nonlinearity="relu"',
            'nonlinearity="linear"',
        ),
        Mutant(
            "train-evaluated-for-test",
            "classic = wb.evaluate(net, data.test)",
            "classic = wb.evaluate(net, data.train)",
        ),
        Mutant("dropout-when-asked", "layer.eval()(h)", "layer(h)"),
        Mutant(
            "dropout-of-the-share-kept",
            "nn.Dropout(0.3), torch.ones",
            "nn.Dropout(0.7), torch.ones",
        ),
        Mutant(
            "gradient-without-the-inner-slope",
            "inner = torch.diag(p) - torch.outer(p, p)",
            "inner = torch.eye(10).double()",
        ),
        Mutant(
            "train-judged-for-test-at-the-end",
            "evaluation = wb.evaluate(better, data.test)",
            "evaluation = wb.evaluate(better, data.train)",
        ),
        Mutant(
            "scaling-done-by-the-client-too",
            "served, local = service.predict(questions), wb",
            "served, local = service.predict(questions // 255), wb",
        ),
    ),
    "04_wide_regression": (
        Mutant("ridge-sign", "Z.T @ Z + penalty *", "Z.T @ Z - penalty *"),
        Mutant(
            "ridge-bias-dropped", "model.linear.bias.copy_(t.mean())", "model.linear.bias.zero_()"
        ),
        Mutant(
            "ridge-no-scaling",
            "Z = (x - x.mean(0)) / x.std(0, correction=0)\n    system",
            "Z = x\n    system",
            quick=True,
        ),
        Mutant(
            "broadcast-target",
            "wide.train.targets.unsqueeze(1))",
            "wide.train.targets)",
            quick=True,
        ),
        Mutant(
            "broadcast-loss-by-hand",
            "by_hand = ((outputs - y) ** 2)",
            "by_hand = ((outputs[:, 0] - y) ** 2)",
        ),
        Mutant(
            "net-too-small",
            "hidden=(500, 100), seed=seed)\nassert wb.summary",
            "hidden=(500,), seed=seed)\nassert wb.summary",
        ),
        Mutant(
            "train-evaluated",
            "evaluation = wb.evaluate(net, test)",
            "evaluation = wb.evaluate(net, wide.train)",
            quick=True,
        ),
        Mutant(
            "train-for-the-margin",
            "wb.evaluate(model, data.validation), wb",
            "wb.evaluate(model, data.train), wb",
        ),
        Mutant(
            "mean-of-batch-means",
            "duel.difference, line.mse - evaluation.mse",
            "duel.difference, line.mse - mean_of_batches(squared, 64), 1e-6",
        ),
        Mutant("state-not-loaded", "other.load_state_dict(load_file(path))\n", "load_file(path)\n"),
        Mutant("fold-sign", "torch.stack([u, -u])", "torch.stack([u, u])"),
        Mutant("eval-forgotten", "end.eval()(activations)", "end(activations)"),
    ),
    "05_cifar10_cnn": (
        Mutant(
            "bias-dropped-in-convolution", ".sum((1, 2, 3)) + bias", ".sum((1, 2, 3))", quick=True
        ),
        Mutant("sign-filter-flipped", "(weight * patch)", "(weight.flip(-1, -2) * patch)"),
        Mutant("padding-once", "(W - K + 2 * P) // S + 1", "(W - K + P) // S + 1"),
        Mutant("bias-not-counted", "6 * (3 * 5 * 5 + 1)", "6 * 3 * 5 * 5"),
        Mutant("softmax-in-the-net", "net.fc1(x)))))", "net.fc1(x))))).softmax(1)"),
        Mutant("view-of-another-size", "size=(52, 52)", "size=(32, 32)", quick=True),
        Mutant(
            "sign-of-the-step",
            "by_hand - 0.001 * velocity",
            "by_hand + 0.001 * velocity",
            quick=True,
        ),
        Mutant("gradient-not-zeroed", "optimizer.zero_grad()\n    (2 * theta)", "(2 * theta)"),
        Mutant("scaling-forgotten", ".float().div(127.5).sub(1)", ".float()"),
        Mutant(
            "channels-last",
            "permute(2, 0, 1).contiguous() for",
            "permute(2, 1, 0).contiguous() for",
        ),
        Mutant(
            "train-evaluated",
            "evaluation = wb.evaluate(net, test)",
            "evaluation = wb.evaluate(net, data.train)",
        ),
    ),
}
