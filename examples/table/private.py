"""Predict how a disease progressed in a year from ten measurements: a regression over a table, at epsilon 8."""

import torch
from pandas import DataFrame
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from torch import Tensor, nn

import fedmodel as fm

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

run = fm.simulate(
    model=Regressor,
    train=train,
    test=test,
    label="target",
    task="regression",
    target_range=(LOW, HIGH),
    loss="mse",
    silos=3,
    partition=fm.IID(),
    rounds=20,
    epsilon=8,
    delta=1e-3,
    max_grad_norm=1.0,
    sample_rate=0.5,
    learning_rate=0.2,
    seed=1,
)
print(run)
x, y = tensors(test)
print(f"R2 {r2_score(y, run.model(x)[:, 0].detach()):.2f}")
