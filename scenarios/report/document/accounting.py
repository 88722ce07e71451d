"""The section on accounting: the run's charges, read by three accountants."""

from __future__ import annotations

from typing import Literal

from scenarios.report.document.forms import Epsilon, Questions
from scenarios.runs.parts import Part


class CurvePoint(Part):
    """A point of the privacy curve.

    Attributes:
        epsilon: At which it is read.
        delta: An upper bound.
    """

    epsilon: float
    delta: float


class SiloAccounting(Part):
    """The whole plan of one run of one silo, by three accountants; of a run that released nothing, of nothing.

    Attributes:
        silo: Its name.
        delta: At which all three are read.
        pld: The claim; null where no noise was added, or where it came from a seed, of which accountants know nothing.
        prv: By another library; null with a reason.
        prv_reason: Why there is none; null where there is.
        rdp: By Rényi divergences, always looser; null where `pld` is for one of its reasons.
        rdp_order: At which order; null where nothing was charged, or noise came from a seed.
        curve: delta(epsilon), by PLD; empty where there is none.
    """

    silo: str
    delta: float
    pld: Epsilon
    prv: float | None
    prv_reason: str | None
    rdp: float | None
    rdp_order: int | None
    curve: tuple[CurvePoint, ...]


class Method(Part):
    """What one of the accountants is.

    Attributes:
        name: "pld", "prv" or "rdp".
        means: What its figure is.
        by: Whose code computes it.
    """

    name: Literal["pld", "prv", "rdp"]
    means: str
    by: str


class Accounting(Part):
    """The run's charges, read by three accountants.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        composition: How steps and runs are composed.
        methods: What each accountant is.
        silos: A row each.
    """

    nist: Questions = (
        "How do releases compose, and by which accountant?",
        "Do independent accountants agree?",
    )
    composition: str
    methods: tuple[Method, ...]
    silos: tuple[SiloAccounting, ...]
