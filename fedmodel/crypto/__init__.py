"""Every primitive of cryptography, in the one package that imports `cryptography`.

| Module         | Holds                                                                                        |
|----------------|----------------------------------------------------------------------------------------------|
| `primitives`   | hashes, Ed25519, X25519, HPKE, keystreams, each under its own label                          |
| `postquantum`  | ML-DSA-65, which signs beside Ed25519 where a federation asks for it                         |
"""

from fedmodel.crypto.postquantum import (
    POST_QUANTUM_PUBLIC_SIZE,
    POST_QUANTUM_SIGNATURE_SIZE,
    PostQuantumKey,
    verify_post_quantum,
)
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
    "POST_QUANTUM_PUBLIC_SIZE",
    "POST_QUANTUM_SIGNATURE_SIZE",
    "SIGNATURE_SIZE",
    "AgreementKey",
    "Keystream",
    "PostQuantumKey",
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
    "verify_post_quantum",
]
