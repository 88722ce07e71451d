"""Every error that fedmodel raises on purpose, in one place.

    FedmodelError
    ├── ConfigError             a scenario, an option or a request is not acceptable
    ├── DataError               records are missing, malformed or too few
    ├── ProtocolError           a message broke the rules of the exchange
    │   └── DropoutError        too few silos are left to finish a round
    ├── CryptoError             a key, signature or ciphertext did not verify
    ├── PrivacyError            a mechanism does not bound what one record can do
    ├── PolicyRefused           the silo's own policy says no
    ├── PrivacyBudgetExceeded   the silo's budget says no
    └── LedgerError             the ledger cannot be read or written
        └── LedgerTampered      the ledger was changed after it was written

A message names what was found, which rule it breaks and what to do next; never a secret, a sample or a gradient.
`code` is the only part of an error that may leave a silo. `exit_status` is what the `fedmodel` command ends with.
"""

from __future__ import annotations

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


class LedgerError(FedmodelError):
    """The ledger cannot be read or written as it must be."""

    code = "ledger-failed"
    exit_status = 4


class LedgerTampered(LedgerError):
    """The ledger was changed after it was written."""

    code = "ledger-tampered"


def error_codes() -> frozenset[str]:
    """Return every code of the tree: the only words about a failure that may leave a silo."""
    kinds: list[type[FedmodelError]] = [FedmodelError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return frozenset(kind.code for kind in kinds)
