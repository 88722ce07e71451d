"""The file for Flower's own command is TOML that says the same paths, however a folder is called."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from fedmodel.errors import ConfigError
from scenarios.drafts.flower import project_text

ODD = [
    "plain",
    "with a space",
    "Klinik 🏥 Süd",
    'a "quoted" \\ one',
    "two\nlines = 3",
    "return\rtab\t",
    "bell\x07 and delete\x7f",
    "next line\x85 and\u2028 another",
]


@pytest.mark.parametrize("name", ODD)
def test_paths_are_read_back_as_they_are(name: str) -> None:
    folder, scenario = Path("/home") / name, Path(name) / "study" / f"{name}.toml"
    project = tomllib.loads(project_text("study", folder, scenario))
    app = project["tool"]["flwr"]["app"]
    assert list(project) == ["project", "tool"]
    assert (app["config"]["folder"], app["config"]["scenario"]) == (os.fspath(folder), os.fspath(scenario))
    assert app["fab-include"] == [f"/{name}.toml"]


def test_a_path_that_no_text_can_say_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="is not UTF-8") as refused:
        project_text("study", Path(os.fsdecode(b"/home/Kl\xefnik")), Path("study/study.toml"))
    assert "\n" not in str(refused.value)
    str(refused.value).encode()
