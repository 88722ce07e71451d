"""A label of each position of a sequence, such as whether a word is a name; no label counts for nothing."""

from __future__ import annotations

from typing import Final

from fedmodel.learning.tasks._positions import Positions


class SequenceLabels(Positions):
    """Labels of one set, in which every position that counts has one."""

    name = "sequence-labels"
    default = ("token-accuracy", "perplexity")


TASK: Final = SequenceLabels
