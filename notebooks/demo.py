"""The main job from end to end: the CIFAR-10 notebook by papermill, then its model over HTTP."""

from pathlib import Path

import torch

import workbench as wb

NOTEBOOK = Path(__file__).with_name("05_cifar10_cnn.ipynb")


def main() -> None:
    """Run notebook 05 with shorter trainings, serve what it published, ask about ten images."""
    run = wb.run(NOTEBOOK, epochs=1.35, lenet_steps=1000)
    version = wb.version(run.published[-1])
    test = wb.load("cifar10").test
    assert test is not None  # CIFAR-10 has one
    with wb.serve(version) as service:
        served = service.predict(test.inputs[:10])
    local = wb.predict(version.load(), test.inputs[:10])
    off = (torch.as_tensor(served.output) - local.output).abs().max().item()

    print(f"test accuracy      {run.metrics['test_accuracy']:.2%} of 10,000 images")
    print(f"executed notebook  {run.notebook}")
    print(f"published version  {version.ref}")
    print(f"over HTTP          {' '.join(served.labels or [])}")
    print(f"here               {' '.join(local.labels or [])}")
    print(f"truth              {' '.join(test.classes[i] for i in test.targets[:10].tolist())}")
    print(f"outputs differ by  {off:.1e} at most")
    if off > 1e-5 * max(1.0, local.output.abs().max().item()):
        raise SystemExit("the service does not answer what the model says here")


if __name__ == "__main__":
    main()
