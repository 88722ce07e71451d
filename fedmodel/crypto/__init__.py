"""Every primitive of cryptography, in the one package that imports `cryptography`.

| Module         | Holds                                                                                        |
|----------------|----------------------------------------------------------------------------------------------|
| `primitives`   | hashes, Ed25519, X25519, HPKE, keystreams, each under its own label                          |
| `public_draws` | uniform numbers from a public seed, alike in any version of any library                      |
| `postquantum`  | ML-DSA-65, which signs beside Ed25519 if a federation asks for it                            |
| `certificates` | X.509: the authority, what it issues and revokes; Flower's node keys                         |
| `transport`    | TLS contexts from these certificates, and a line on why a connection failed                  |
"""

from fedmodel.crypto.certificates import (
    Authority,
    Issued,
    NodeKey,
    Purpose,
    check_issued,
    check_revocations,
    fingerprint,
    load_node_key,
    make_node_key,
    not_valid_after,
    serial_number,
    subject_name,
)
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
    SecretStream,
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
from fedmodel.crypto.public_draws import public_words
from fedmodel.crypto.transport import client_context, explain_tls, server_context

__all__ = [
    "BLOCK_SIZE",
    "KEY_SIZE",
    "POST_QUANTUM_PUBLIC_SIZE",
    "POST_QUANTUM_SIGNATURE_SIZE",
    "SIGNATURE_SIZE",
    "AgreementKey",
    "Authority",
    "Issued",
    "Keystream",
    "NodeKey",
    "PostQuantumKey",
    "Purpose",
    "SealingKey",
    "SecretStream",
    "SigningKey",
    "Suite",
    "check_agreement_key",
    "check_issued",
    "check_revocations",
    "check_sealing_key",
    "check_verification_key",
    "client_context",
    "derive_key",
    "digest",
    "digest_words",
    "explain_tls",
    "fingerprint",
    "load_node_key",
    "make_node_key",
    "not_valid_after",
    "public_words",
    "random_bytes",
    "random_stream",
    "seal",
    "serial_number",
    "server_context",
    "subject_name",
    "verify",
    "verify_note",
    "verify_post_quantum",
]
