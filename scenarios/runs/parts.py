"""What a report and whoever reads a run's ledgers have in common: the base of every part, and a ledger's head.

A part is frozen, has no field that is not named, no NaN and no infinity.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="32 bytes in hexadecimal")]
Moment = Annotated[str, Field(description="UTC, as ISO 8601")]


class Part(BaseModel):
    """Base of every part: immutable, strict about types, no field that is not named, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Countersigned(Part):
    """A silo's own entry that the run has ended.

    Attributes:
        entry: Its number: the entries up to it hold all of the run.
        model: SHA-256 of the model that the server named to the silo, `model.safetensors`, opened where it is sealed.
        code: Hash of the code that the silo ran.
    """

    entry: int
    model: Hash
    code: Hash


class LedgerHead(Part):
    """What a silo's ledger was when the report was made.

    Attributes:
        silo: Whose.
        key: Its public key, that entries and heads are signed with.
        key_from: Who vouches for the key: "roster", or "ledger" where the ledger alone names it.
        entries: How many it had.
        root: Of the Merkle tree over them.
        head: The newest signed head that lay beside it, a C2SP checkpoint; null where none did.
        head_entries: How many entries that head is of.
        verifier_key: The key as verifiers of C2SP notes take it.
        countersigned: That the run has ended, under the silo's key; null where the silo was gone by then.
    """

    silo: str
    key: Hash
    key_from: Literal["roster", "ledger"]
    entries: int
    root: Hash
    head: str | None
    head_entries: int | None
    verifier_key: str
    countersigned: Countersigned | None
