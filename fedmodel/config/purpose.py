"""What a run is for, and who answers for it: people's words, that a report repeats and nothing computes with.

A scenario says what its model is for, who decides on it, and until when it is kept; every silo takes part in that
scenario by its hash, and so in that purpose. A silo's law says who answers for the silo's own records.

Does NOT hold anybody to it: a purpose that is said is a promise of people, and no code keeps a model to it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from fedmodel.kinds.section import Section, is_inert

Said = Annotated[str, Field(min_length=1, max_length=400), AfterValidator(is_inert)]
"""A person's own words, in one line."""


class PurposeConfig(Section):
    """What a scenario's model is for, and who decides on it; what is left out, a report calls not stated.

    Attributes:
        statement: What the model is to be used for.
        controller: Who decides on purpose and means, as Article 4(7) of the GDPR has it.
        contact: Where people reach that party.
        legal_basis: On which law the processing rests.
        retention: Until when the model and the run's files are kept.
        decision: What is asked of whoever reads the report.
    """

    statement: Said | None = None
    controller: Said | None = None
    contact: Said | None = None
    legal_basis: Said | None = None
    retention: Said | None = None
    decision: Said | None = None


class ControllerConfig(Section):
    """Who answers for one silo's records, by the silo's own law.

    Attributes:
        name: Of the party.
        contact: Where people reach it.
        retention: Until when the silo keeps these records.
    """

    name: Said
    contact: Said | None = None
    retention: Said | None = None
