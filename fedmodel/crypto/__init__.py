"""Every primitive of cryptography, in the one package that imports `cryptography`.

`primitives` holds hashes, keys, signatures, sealing and keystreams.
"""

from fedmodel.crypto.primitives import (
    BLOCK_SIZE,
    KEY_SIZE,
    SIGNATURE_SIZE,
    AgreementKey,
    Keystream,
    SealingKey,
    SigningKey,
    Suite,
    check_agreement_key,
    check_sealing_key,
    check_verification_key,
    derive_key,
    digest,
    digest_words,
    random_bytes,
    random_stream,
    seal,
    verify,
    verify_note,
)

__all__ = [
    "BLOCK_SIZE",
    "KEY_SIZE",
    "SIGNATURE_SIZE",
    "AgreementKey",
    "Keystream",
    "SealingKey",
    "SigningKey",
    "Suite",
    "check_agreement_key",
    "check_sealing_key",
    "check_verification_key",
    "derive_key",
    "digest",
    "digest_words",
    "random_bytes",
    "random_stream",
    "seal",
    "verify",
    "verify_note",
]
