"""The section on purpose: what the run is for, and who answers, in the words of the scenario and of the silos' laws."""

from __future__ import annotations

from scenarios.report.document.forms import Questions
from scenarios.runs.parts import Part


class Answerable(Part):
    """Who answers for one silo's records, by its law.

    Attributes:
        silo: Its name.
        name: Of the party.
        contact: Where people reach it; null where that is not stated.
        retention: Until when the silo keeps these records; null where that is not stated.
    """

    silo: str
    name: str
    contact: str | None
    retention: str | None


class Purpose(Part):
    """What the run is for, and who answers: people's words, and null where nothing was stated.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        statement: What the model is to be used for.
        controller: Who decides on purpose and means.
        contact: Where people reach that party.
        legal_basis: On which law the processing rests.
        retention: Until when the model and the run's files are kept.
        decision: What is asked of whoever reads the report.
        silos: A row each for silos whose law says who answers. A law that is not at hand when a report is verified is
            not compared, and its row is the word of whoever signed.
    """

    nist: Questions = ("What is the release for?", "Who is responsible for it?")
    statement: str | None
    controller: str | None
    contact: str | None
    legal_basis: str | None
    retention: str | None
    decision: str | None
    silos: tuple[Answerable, ...]
