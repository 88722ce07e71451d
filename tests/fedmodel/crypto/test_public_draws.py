"""Public numbers are AES-256's in counter mode under a hash of label and seed, however many are asked for."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedmodel.crypto import BLOCK_SIZE, digest, public_words

LABEL = b"fedmodel/v1/test"


@pytest.mark.parametrize("count", [0, 1, 7, 1000, BLOCK_SIZE // 8, BLOCK_SIZE // 8 + 3])
def test_numbers_are_the_ciphers_and_the_first_of_more(count: int) -> None:
    key = digest(LABEL, (5).to_bytes(8, "big"))
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * count))
    assert public_words(LABEL, 5, count).astype("<u8").tobytes() == stream
    assert public_words(LABEL, 5, count + 9)[:count].astype("<u8").tobytes() == stream


def test_another_label_or_seed_has_other_numbers_and_they_never_change() -> None:
    drawn = public_words(LABEL, 5, 100)
    assert hashlib.sha256(drawn.astype("<u8").tobytes()).hexdigest()[:16] == "1ac61130f5c4026c"
    for other in (public_words(LABEL, 6, 100), public_words(LABEL + b"/more", 5, 100)):
        assert not np.isin(other, drawn).any()
