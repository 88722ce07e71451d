"""A draft written into a folder of its own: the scenario, the owner's part of `silo.toml`, and made-up tables."""

from __future__ import annotations

import json
import secrets
import tomllib
from pathlib import Path

from fedmodel.config import scenario_from_json
from fedmodel.data.looking import Looked
from fedmodel.errors import ConfigError
from fedmodel.kinds.sources.table import HELD_OUT
from fedmodel.system.durable import failed, replace_file
from scenarios.drafts.asking import Answers
from scenarios.drafts.flower import PROJECT, project_text
from scenarios.drafts.text import made_up, scenario_text, table_text

SCENARIO = "study.toml"
TABLE = "silo-table.toml"
MADE_UP = "made-up"


def write_draft(out: Path, name: str, looked: Looked, answers: Answers, *, flower: bool = False) -> None:
    """Write a draft.

    Args:
        out: A folder that is not there yet.
        name: Of the scenario and of the data set.
        looked: The owner's file.
        answers: What its owner said.
        flower: Whether `flwr run` is to run it too.

    Raises:
        ConfigError: When the folder is there, what was said makes no scenario, or it cannot be written.
    """
    if not answers.columns:
        raise ConfigError("no column is left to learn from: say a range or categories of one at least")
    seed = secrets.randbelow(2**31)
    text = scenario_text(name, answers, out / MADE_UP, seed)
    try:
        scenario_from_json(json.dumps(tomllib.loads(text)))
    except (ConfigError, ValueError) as error:  # a name may have a character that TOML refuses
        raise ConfigError(f"what was said makes no scenario: {error}") from None
    files = {TABLE: table_text(name, looked.source, answers.person)}
    parties = (*answers.silos, HELD_OUT)
    files |= {f"{MADE_UP}/{party}.csv": made_up(answers, seed + at) for at, party in enumerate(parties)}
    if flower:
        files[PROJECT] = project_text(name, Path.cwd(), out / SCENARIO)
    try:
        out.mkdir(mode=0o700, parents=True)
        (out / MADE_UP).mkdir(mode=0o700)
        # The scenario comes last: where it stands, all that it names does.
        for file, content in (files | {SCENARIO: text}).items():
            replace_file(out / file, content.encode())
    except FileExistsError:
        raise ConfigError(f"--out {out}: is there already; name a new folder") from None
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {failed(error)}") from None
