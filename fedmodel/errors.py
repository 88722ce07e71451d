"""Every error that fedmodel raises on purpose, in one place.

    FedmodelError
    ├── ConfigError             a scenario, an option or a request is not acceptable
    ├── DataError               records are missing, malformed or too few
    ├── ProtocolError           a message broke the rules of the exchange
    │   ├── DropoutError        too few silos are left to finish a round
    │   └── AggregationRefused  a message broke a rule of secure aggregation, and which
    ├── CryptoError             a key, signature or ciphertext did not verify
    ├── PrivacyError            a mechanism does not bound what one record can do
    ├── PolicyRefused           the silo's own policy says no
    ├── PrivacyBudgetExceeded   the silo's budget says no
    ├── ClaimRefuted            a figure of privacy does not follow, or an attack did better than it allows
    ├── Inconclusive            an audit that could not have refuted a false claim
    └── LedgerError             the ledger cannot be read or written
        └── LedgerTampered      the ledger was changed after it was written

A message names what was found, which rule it breaks and what to do next; never a secret, a sample or a gradient.
`code` is the only part of an error that may leave a silo. `exit_status` is what the `fedmodel` command ends with.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class FedmodelError(Exception):
    """Base of the tree, and what an unforeseen exception counts as; `code` may cross the wire, the message may not."""

    code: ClassVar[str] = "internal"
    exit_status: ClassVar[int] = 1


class ConfigError(FedmodelError):
    """A scenario, an option or a request is not acceptable."""

    code = "config-refused"
    exit_status = 2


class DataError(FedmodelError):
    """Records are missing, malformed or too few for what was asked.

    It has no code of its own: what leaves a silo must not tell a bad record from any other failure.
    """

    exit_status = 2


class ProtocolError(FedmodelError):
    """A message broke the rules of the exchange."""

    code = "protocol-violated"


class DropoutError(ProtocolError):
    """Too few silos are left to finish a round."""

    code = "too-few-silos"


class Rule(Enum):
    """The rules of secure aggregation that a message can break; a test names each."""

    MALFORMED = "a message is not in its one encoding"
    REPLAYED = "a message is of another run, round or attempt"
    OUT_OF_ORDER = "a stage comes before the one that it stands on"
    REPEATED = "a stage is done once"
    STALE = "state that was lost or put back is not gone on with"
    UNKNOWN_SENDER = "only silos of the roster take part"
    BAD_SIGNATURE = "every message is signed by its sender"
    DUPLICATE = "numbers, names and keys are distinct"
    OWN_ADVERT = "a silo's own advert is there as it was sent"
    ECHOED_KEY = "nobody else has a silo's key"
    WEAK_KEY = "no key is a point of small order, or not in its one encoding"
    ROSTER = "the roster is within the policy"
    COHORT = "the cohort is within the policy"
    CONTEXT = "all silos got the same model and configuration"
    LINEAGE = "a round begins from state of the same rounds at every silo, or fresh"
    SURVIVORS = "the survivors are within the cohort, and enough"
    NOT_MASKED_WITH = "every surviving neighbour is one that was masked with"
    TWO_FACED = "there is one list of survivors"
    QUORUM = "a quorum signed the list of survivors"
    SHARES = "enough neighbours dealt shares"
    VECTOR = "a masked update is the vector that its silo signed"


class AggregationRefused(ProtocolError):
    """A message broke a rule of secure aggregation; nothing was revealed for it."""

    code = "aggregation-refused"

    def __init__(self, rule: Rule, found: str) -> None:
        super().__init__(f"{found} ({rule.value})")
        self.rule = rule


class CryptoError(FedmodelError):
    """A key, a signature or a ciphertext did not verify."""

    code = "crypto-failed"


class PrivacyError(FedmodelError):
    """A training pipeline does not bound what one record can do, so no claim about it holds."""

    code = "preflight-refused"
    exit_status = 2


class PolicyRefused(FedmodelError):
    """The silo's own policy does not admit the request."""

    code = "policy-refused"
    exit_status = 2


class PrivacyBudgetExceeded(FedmodelError):
    """The request would spend more than the silo's budget."""

    code = "budget-exceeded"
    exit_status = 2


class ClaimRefuted(FedmodelError):
    """A figure of privacy does not follow from what it is computed from, or an attack did better than it allows."""

    code = "claim-refuted"
    exit_status = 3


class Inconclusive(FedmodelError):
    """An audit that could not have refuted a false claim: it says nothing, and is never a pass."""

    code = "inconclusive"
    exit_status = 5


class LedgerError(FedmodelError):
    """The ledger cannot be read or written as it must be."""

    code = "ledger-failed"
    exit_status = 4


class LedgerTampered(LedgerError):
    """The ledger was changed after it was written; `sequence` is the first bad entry's, where one is known."""

    code = "ledger-tampered"

    def __init__(self, found: str, sequence: int | None = None) -> None:
        super().__init__(found if sequence is None else f"entry {sequence}: {found}")
        self.found = found
        self.sequence = sequence

    def inside(self, path: object) -> LedgerTampered:
        """Return the same, with the file that it was found in."""
        named = LedgerTampered(f"{path}: {self}")
        named.sequence = self.sequence
        return named


def error_codes() -> frozenset[str]:
    """Return every code of the tree: the only words about a failure that may leave a silo."""
    return frozenset(kind.code for kind in _kinds())


def error_kind(code: str) -> type[FedmodelError]:
    """Return the kind of error that a code names, the base of the tree where it names none.

    Of two kinds with one code it is the one nearer to the base. `AggregationRefused` is told as its base: a rule, which
    it asks for, is not in a code.

    >>> error_kind("budget-exceeded").__name__
    'PrivacyBudgetExceeded'
    """
    found = next((kind for kind in _kinds() if kind.code == code), FedmodelError)
    return ProtocolError if found is AggregationRefused else found


def _kinds() -> list[type[FedmodelError]]:
    """Return every kind of the tree, from the base on."""
    kinds: list[type[FedmodelError]] = [FedmodelError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return kinds
