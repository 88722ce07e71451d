"""Mistakes in code that a user brings, and figures of training data on their way out, planted as `mutations` are.

A simulation runs whatever model and loss a scenario names, and has figures for the server's own held-out records. Here
the named code couples records, or writes what it saw into the model; and a silo measures its training data with the
user's figure and sends what it found, in each of the ways that an answer has: a record of its own, a word of its own,
or a coordinate of the update.

Shapes: B batch, F features, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmodel import wire
from fedmodel.data import Records
from fedmodel.learning.jobs import Carried, Question
from fedmodel.learning.jobs.training import Answering
from fedmodel.learning.keeping import Kept
from fedmodel.privacy.events import Event
from scenarios.selftest import brought
from scenarios.selftest.planting import Planted, replaced, together


def own_loss_couples() -> Planted:
    """Take half of the mean of all from each record's loss."""
    honest = brought.each

    def less_the_mean(answer_B: Tensor, target_B: Tensor) -> Tensor:
        loss_B = honest(answer_B, target_B)
        return loss_B - 0.5 * loss_B.mean()

    return replaced(brought, "each", less_the_mean)


def own_model_couples() -> Planted:
    """Take the mean of a batch from each record, as a batch norm written by hand does."""
    honest = brought.Net.forward

    def centred(self: brought.Net, x_BF: Tensor) -> Tensor:
        return honest(self, x_BF - x_BF.mean(dim=0))

    return replaced(brought.Net, "forward", centred)


def own_model_keeps_a_figure() -> Planted:
    """Write the mean of what the model made of a batch into its last bias, where no noise is added."""
    honest = brought.Net.forward

    def telling(self: brought.Net, x_BF: Tensor) -> Tensor:
        found = honest(self, x_BF)
        with torch.no_grad():
            self.out.bias.fill_(found.mean())
        return found

    return replaced(brought.Net, "forward", telling)


def nothing_put_back() -> Planted:
    """Leave a model after each physical batch as its own code left it."""
    return replaced(Kept, "put_back", lambda _: None)


def figure_in_a_record() -> Planted:
    """Send a figure of the training data in a record of its own, as Flower's clients send their metrics."""
    noted: list[float] = []
    encode = wire.masked_reply

    def telling(reply: wire.MaskedReply) -> Any:
        content = encode(reply)
        (head, *_) = content.config_records.values()
        content["training"] = type(head)({"farthest": noted[-1]})
        return content

    def measured(update_P: NDArray[np.float32], figure: float) -> NDArray[np.float32]:
        noted.append(figure)
        return update_P

    return together(partial(replaced, wire, "masked_reply", telling), partial(_answered, measured))


def figure_in_a_word() -> Planted:
    """Send a figure of the training data in one word more than the model has."""
    return _answered(lambda update_P, figure: np.append(update_P, np.float32(figure)))


def figure_in_the_update() -> Planted:
    """Add a figure of the training data to the first coordinate of the update."""

    def added(update_P: NDArray[np.float32], figure: float) -> NDArray[np.float32]:
        found_P = update_P.copy()
        found_P[0] += np.float32(figure)
        return found_P

    return _answered(added)


def _answered(change: Callable[[NDArray[np.float32], float], NDArray[np.float32]]) -> Planted:
    """Change a silo's update by the user's own figure of its training data, as if it answered zero everywhere."""
    answer = Answering.answer

    def measuring(
        self: Answering, question: Question, records: Callable[[], Records], event: Event, carried: Carried
    ) -> NDArray[np.float32]:
        update_P = answer(self, question, records, event, carried)
        y_N = records().y_N
        return change(update_P, brought.farthest(np.zeros_like(y_N), y_N))

    return replaced(Answering, "answer", measuring)
