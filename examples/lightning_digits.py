"""Train a small network on handwritten digits with Lightning, and test its best checkpoint.

    pip install -e '.[lightning]' scikit-learn                 in a clone of the repository
    python examples/lightning_digits.py
    python examples/lightning_digits.py --resume PATH.ckpt     continues the run that saved it

What it leaves is in `flightlog/`: `flightlog sync` delivers it.
"""

from __future__ import annotations

import argparse

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

from flightlog_lightning import FlightlogLogger


class Digits(L.LightningDataModule):
    """The 1,797 digits of 8 x 8 pixels that scikit-learn carries."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        pixels, labels = load_digits(return_X_y=True)
        whole = TensorDataset(torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels))
        parts = random_split(whole, [1297, 250, 250], torch.Generator().manual_seed(0))
        self.train, self.val, self.test = parts

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, 250)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, 250)


class Classifier(L.LightningModule):
    """Two layers."""

    def __init__(self, width: int = 64, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        loss = functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        self._measure("val", batch)

    def test_step(self, batch: list[torch.Tensor], index: int) -> None:
        self._measure("test", batch)

    def _measure(self, stage: str, batch: list[torch.Tensor]) -> None:
        scores = self.layers(batch[0])
        self.log(f"{stage}/loss", functional.cross_entropy(scores, batch[1]))
        self.log(f"{stage}/accuracy", (scores.argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--resume", default=None, help="a checkpoint to go on from")
    arguments = parser.parse_args()
    L.seed_everything(1)
    trainer = L.Trainer(
        max_epochs=arguments.epochs,
        logger=FlightlogLogger(project="digits", checkpoints="best_and_last"),
        callbacks=[ModelCheckpoint(monitor="val/loss", save_last=True)],
        log_every_n_steps=5,
        accelerator="cpu",
        enable_progress_bar=False,
    )
    model, data = Classifier(), Digits()
    trainer.fit(model, data, ckpt_path=arguments.resume)
    trainer.test(model, data, ckpt_path="best")


if __name__ == "__main__":
    main()
