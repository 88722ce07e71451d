"""Classify handwritten digits by a ResNet with GroupNorm, from a folder of images for each class."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, random_split

FOLDER = Path("digits")
EPOCHS = 5


def write_images(folder: Path) -> None:
    """Write scikit-learn's digits as PNGs, a folder for each class: stand-ins for images of your own."""
    bunch = load_digits()
    for number, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(path)


class Images(Dataset[tuple[Tensor, int]]):
    """Grey images, from 0 to 1, with the number of the folder that each lies in."""

    def __init__(self, folder: Path) -> None:
        classes = sorted(path.name for path in folder.iterdir())
        self.files = [(path, classes.index(path.parent.name)) for path in sorted(folder.glob("*/*.png"))]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            pixels = np.asarray(image, dtype=np.float32)
        return torch.from_numpy(pixels)[None] / 255, label


class Block(nn.Module):
    """Two convolutions, and what came in added to what comes out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(4, channels), nn.GroupNorm(4, channels)])

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(x + self.norms[1](self.second(inner)))


class ResNet(nn.Module):
    """A stem, two blocks, and a linear layer over images of 8x8."""

    def __init__(self, channels: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.Sequential(Block(channels), nn.MaxPool2d(2), Block(channels))
        self.head = nn.Linear(channels * 4 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.stem(x))).flatten(1))


def accuracy(model: nn.Module, records: Dataset[tuple[Tensor, int]]) -> float:
    """Return how many of the records are classified rightly, from 0 to 1."""
    model.eval()
    with torch.no_grad():
        right = [model(x).argmax(dim=1) == y for x, y in DataLoader(records, batch_size=256)]
    return float(torch.cat(right).float().mean())


if not FOLDER.exists():
    write_images(FOLDER)
torch.manual_seed(1)
train, test = random_split(Images(FOLDER), [0.8, 0.2])

model = ResNet()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
for _ in range(EPOCHS):
    for x, y in DataLoader(train, batch_size=64, shuffle=True):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

print(f"accuracy {accuracy(model, test):.2f}")
