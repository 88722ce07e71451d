"""Sort short messages into urgent and routine ones by a small transformer, which reads bytes, at epsilon 8."""

import random

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.data import DataLoader, TensorDataset

import fedmodel as fm

LENGTH = 48


def messages(count: int, seed: int) -> list[tuple[str, int]]:
    """Return made-up messages, each with 1 if it is urgent: stand-ins for texts of your own."""
    draw = random.Random(seed)
    urgent = ["please call back at once", "chest pain since noon", "cannot breathe well", "bleeding does not stop"]
    routine = ["a new appointment in may", "the form is filled in", "refill as usual", "thanks for the letter"]
    begins = ["good morning,", "hello,", "dear team,", "about the last visit:", "ward 3:", "from the front desk:"]
    found = []
    for _ in range(count):
        label = draw.randrange(2)
        found.append((f"{draw.choice(begins)} {draw.choice(urgent if label else routine)}", label))
    return found


def encoded(texts: list[tuple[str, int]]) -> TensorDataset:
    """Return each text as bytes, plus one; 0 fills up to the length."""
    tokens = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, (text, _) in enumerate(texts):
        read = text.encode()[:LENGTH]
        tokens[row, : len(read)] = torch.tensor(list(read)) + 1
    return TensorDataset(tokens, torch.tensor([label for _, label in texts]))


class Layer(nn.Module):
    """Attention over all places, and two linear layers at each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.attend(self.before(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None, :])
        x = x + self.join(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(torch.relu(self.wide(self.between(x))))


class Transformer(nn.Module):
    """Bytes and their places embedded, one layer, and an average over the places that are filled."""

    def __init__(self, width: int = 32, heads: int = 4, classes: int = 2) -> None:
        super().__init__()
        self.byte = nn.Embedding(257, width)
        self.place = nn.Embedding(LENGTH, width)
        self.layer = Layer(width, heads)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        there = tokens > 0
        places = torch.arange(LENGTH, device=tokens.device).expand_as(tokens)
        x = self.layer(self.byte(tokens) + self.place(places), there)
        weight = there.unsqueeze(-1).float()
        return self.head((x * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1))


def accuracy(model: nn.Module, records: TensorDataset) -> float:
    """Return how many of the records are classified rightly, from 0 to 1."""
    model.eval()
    with torch.no_grad():
        right = [model(x).argmax(dim=1) == y for x, y in DataLoader(records, batch_size=256)]
    return float(torch.cat(right).float().mean())


train, test = encoded(messages(1200, seed=1)), encoded(messages(300, seed=2))

run = fm.simulate(
    model=Transformer,
    train=train,
    test=test,
    silos=3,
    partition=fm.IID(),
    rounds=8,
    epsilon=8,
    delta=1e-4,
    max_grad_norm=1.0,
    sample_rate=0.25,
    learning_rate=0.5,
    momentum=0.9,
    seed=1,
)
print(run)
print(f"accuracy {accuracy(run.model, test):.2f}")
