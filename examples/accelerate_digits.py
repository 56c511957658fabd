"""Handwritten digits with accelerate: a loop of one's own, recorded by log_with="flightlog".

    python examples/accelerate_digits.py            # trains, and goes on where it was if it is started again
    flightlog verify                                # shows what was recorded

The images come with scikit-learn. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

import flightlog_transformers  # it makes the name "flightlog" known


def loaders(batch: int) -> tuple[DataLoader, DataLoader]:
    """Return the images to learn from and those to be judged by."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    known, unseen = random_split(data, [0.8, 0.2], torch.Generator().manual_seed(0))
    return DataLoader(known, batch, shuffle=True), DataLoader(unseen, 256)


def accuracy(model: torch.nn.Module, images: DataLoader) -> float:
    """Return the share of images that a model tells rightly."""
    model.eval()
    with torch.no_grad():
        right = [(model(image).argmax(1) == digit).float() for image, digit in images]
    model.train()
    return torch.cat(right).mean().item()


def main() -> None:
    """Train for some epochs, with a checkpoint after each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--output", type=Path, default=Path("digits-model"))
    chosen = options.parse_args()

    set_seed(0)
    accelerator = Accelerator(log_with="flightlog", step_scheduler_with_optimizer=False)
    flightlog_transformers.attach(accelerator)  # checkpoints are kept, and lead back to their run
    settings = {"batch": 64, "learning_rate": 1e-2, "width": 64}
    accelerator.init_trackers("digits", config=settings, init_kwargs={"flightlog": {"tags": ["example"]}})

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    known, unseen = loaders(64)
    model, optimizer, known, unseen = accelerator.prepare(model, optimizer, known, unseen)

    saved = sorted(chosen.output.glob("epoch-*"), key=lambda path: int(path.name.removeprefix("epoch-")))
    if saved:
        accelerator.load_state(str(saved[-1]))
    begun = int(saved[-1].name.removeprefix("epoch-")) if saved else 0
    for epoch in range(begun + 1, chosen.epochs + 1):
        for number, (images, digits) in enumerate(known, (epoch - 1) * len(known)):
            loss = torch.nn.functional.cross_entropy(model(images), digits)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            if number % 5 == 0:
                accelerator.log({"loss": loss.item(), "epoch": epoch}, step=number)
        score = accuracy(model, unseen)
        accelerator.log({"accuracy": score, "epoch": epoch}, step=epoch * len(known) - 1)
        accelerator.save_state(str(chosen.output / f"epoch-{epoch}"))
        accelerator.print(f"epoch {epoch}: {score:.1%} of the unseen digits")
    accelerator.end_training()


if __name__ == "__main__":
    main()
