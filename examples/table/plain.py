"""Predict how a disease progressed in a year from ten measurements: a regression over a table."""

import torch
from pandas import DataFrame
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 60
LOW, HIGH = 0.0, 400.0  # of the measure that is predicted, as its authors define it


def table() -> DataFrame:
    """Return scikit-learn's table of 442 patients; its columns are scaled already."""
    frame = load_diabetes(as_frame=True).frame
    columns = frame.columns.drop("target")
    frame[columns] *= 20
    return frame


def tensors(frame: DataFrame) -> tuple[Tensor, Tensor]:
    """Return the features, and what is predicted from -1 to 1."""
    x = torch.tensor(frame.drop(columns="target").to_numpy(), dtype=torch.float32)
    y = torch.tensor(frame["target"].to_numpy(), dtype=torch.float32)
    return x, (y - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2)


class Regressor(nn.Module):
    """Two layers, and one number for each patient."""

    def __init__(self, features: int = 10, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


frame = table().sample(frac=1, random_state=1)
train, test = frame[:342], frame[342:]

torch.manual_seed(1)
model = Regressor()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for _ in range(EPOCHS):
    for x, y in DataLoader(TensorDataset(*tensors(train)), batch_size=64, shuffle=True):
        optimizer.zero_grad()
        mse_loss(model(x)[:, 0], y).backward()
        optimizer.step()

x, y = tensors(test)
print(f"R2 {r2_score(y, model(x)[:, 0].detach()):.2f}")
