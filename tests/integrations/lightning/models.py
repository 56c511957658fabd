"""The model that the tests train: in its own module, since the processes that they start train it, too."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch


class Line(L.LightningModule):
    """Fits a line to eight batches of four points."""

    def __init__(self, lr: float = 0.1, fail_at: int = -1, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.fail_at = lr, fail_at
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if self.global_step == self.fail_at:
            raise ArithmeticError("the loss is no number")
        loss = (self.layer(batch) - batch.sum(dim=1, keepdim=True)).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def test_step(self, batch: Any, index: int) -> None:
        self.log("test_loss", self.layer(batch).pow(2).mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.5)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.arange(64.0).reshape(32, 2) / 64, batch_size=4)

    def val_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=4)

    test_dataloader = val_dataloader
