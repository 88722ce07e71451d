"""What a file has to define to be a kind, and what is said of one that does not."""

from __future__ import annotations

from types import ModuleType

import pytest

from fedmodel.kinds.model import Model
from fedmodel.kinds.models import MODELS
from fedmodel.kinds.section import sections

WHOLE = """
from typing import Literal
from fedmodel.kinds.model import Model

class Own(Model):
    kind: Literal["own-one"]
    def build(self, shape):
        raise NotImplementedError
"""


def module(text: str) -> ModuleType:
    found = ModuleType("fedmodel.kinds.models.own_one")
    code = compile(text, "own_one.py", "exec", dont_inherit=True)
    exec(code, vars(found))  # noqa: S102 - text of this file
    return found


def test_a_file_is_a_kind_by_its_own_section() -> None:
    found = sections({"own-one": module(WHOLE)}, Model, "kind")
    assert found["own-one"].model_fields.keys() == {"init", "init_value", "kind"}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (WHOLE.replace("Own(Model)", "Own"), "defines 0 sections that are a Model"),
        (WHOLE + WHOLE.replace("Own", "Other"), "defines 2 sections that are a Model"),
        (WHOLE.replace("own-one", "own_one"), 'has to say kind: Literal."own-one"., as its file is'),
        (WHOLE.replace('"own-one"', '"own-one", "mlp"'), "has to say kind"),
        (WHOLE.replace("def build", "def built"), "lacks build, which is asked of a Model"),
    ],
)
def test_a_file_that_is_no_kind_is_refused_when_it_is_loaded(text: str, rule: str) -> None:
    with pytest.raises(TypeError, match=rule):
        sections({"own-one": module(text)}, Model, "kind")


def test_a_kind_that_another_file_defines_is_not_this_ones() -> None:
    """A file may import another kind, to build on it."""
    text = "from fedmodel.kinds.models.mlp import MlpConfig\n" + WHOLE
    assert sections({"own-one": module(text)}, Model, "kind")["own-one"].__name__ == "Own"


def test_every_kind_of_model_lies_in_the_file_that_it_is_named_after() -> None:
    for name, kind in MODELS.items():
        assert kind.__module__ == f"fedmodel.kinds.models.{name.replace('-', '_')}"
