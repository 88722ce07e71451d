"""The section on trust: who adds noise, who sees what, how updates were hidden."""

from __future__ import annotations

from typing import Literal

from fedmodel.config import AggregationMode
from scenarios.report.document.forms import Questions
from scenarios.runs.parts import Part


class Seen(Part):
    """What one party sees, and what holds against it.

    Attributes:
        who: The party.
        sees: What reaches it.
        holds: What bounds what it learns.
    """

    who: str
    sees: str
    holds: str


class SecureAggregation(Part):
    """How updates were hidden in a sum: figures that held in every round.

    Attributes:
        mode: Whether they were.
        threshold: Least shares that bring a secret back; null where nothing was masked.
        least_silos_in_a_sum: Least updates in a sum that was opened.
        least_effective_silos_in_a_sum: As how many equal silos the weights of a sum count, at least.
        colluding_tolerated: Silos that may work with the server.
        suite: Of keys.
        consistency: How silos agree on who is in a sum.
        bits: Of a word.
        bound: Largest magnitude of an update's coordinate.
    """

    mode: AggregationMode
    threshold: int | None
    least_silos_in_a_sum: int | None
    least_effective_silos_in_a_sum: float | None
    colluding_tolerated: int | None
    suite: str | None
    consistency: str | None
    bits: int
    bound: float | None


class Trust(Part):
    """Who adds noise, who sees what, and who has to be trusted.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        model: Of differential privacy: where noise is added.
        noise_added_by: Who adds it, and when.
        parties: Who sees what.
        secure_aggregation: Its terms.
        collusion: In a sentence, how many may work with the server.
        access: Who can get at records.
    """

    nist: Questions = (
        "Which trust model is it, and who is trusted?",
        "Who adds noise, and before what?",
        "Who has access to records, and how are they kept?",
        "How is what is collected exposed?",
    )
    model: Literal["local-to-the-silo"]
    noise_added_by: str
    parties: tuple[Seen, ...]
    secure_aggregation: SecureAggregation
    collusion: str
    access: str
