"""What a library warns of is kept from a person for a while, and nothing else is, nor for longer."""

import logging
import warnings

import pytest

from fedmodel.system.quiet import quiet


def test_a_librarys_warnings_are_kept_back_for_a_while_and_its_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    def told() -> list[str]:
        caplog.clear()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            for log in ("torch", "torchao", "fedmodel"):
                logging.getLogger(log).warning("%s warns", log)
                logging.getLogger(log).error("%s fails", log)
            warnings.warn("of Python", stacklevel=1)
        return [*caplog.messages, *(str(one.message) for one in found)]

    before = told()
    assert len(before) == 7
    with quiet():
        within = told()
        kept = ["torch fails", "torchao fails", "fedmodel warns", "fedmodel fails", "of Python"]
    assert within == kept  # Python's are told where somebody asks for them again
    with pytest.raises(ValueError, match="passed on"), quiet():
        raise ValueError("passed on")
    assert told() == before
