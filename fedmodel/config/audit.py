"""The section `audit`: canaries, which `fedmodel audit run` writes and no deployed silo takes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedmodel.kinds.section import Section


class AuditConfig(Section):
    """Canaries in a simulated run, which an audit looks for in what the run releases; see `fedmodel.audit`.

    Attributes:
        canaries: "probe", written into a block of parameters of their own, or "loss", made-up records that the model
            itself learns.
        count: Of every silo, from 4; a fair coin decides of each whether it is in the silo's data.
    """

    canaries: Literal["probe", "loss"] = "probe"
    count: int = Field(ge=4, le=10_000)
