"""What the documents promise is so: every key is documented, every decision is in the index, every command exists."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from docs import floors
from fedmodel.config import (
    FederationFile,
    PersonColumn,
    Scenario,
    ServerFile,
    ServerPlace,
    SiloEntry,
    TableSource,
    law,
)
from fedmodel.data import table_records
from fedmodel.kinds.sources.table import TableConfig
from fedmodel.provision.authority import read_scenarios
from fedmodel.secagg.topology import plan_topology
from fedmodel.system.packages import PACKAGES
from scenarios.cli import main
from scenarios.cli.provision import authority_app

LAW = (
    law.SiloFile,
    law.BudgetConfig,
    law.ConnectionConfig,
    law.ControllerConfig,
    law.HoursConfig,
    law.SiloEncryptionConfig,
    TableSource,
)
ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
_IMPORTED_AS = {
    "sklearn": "scikit_learn",
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",
    "markupsafe": "jinja2",
    "IPython": "ipython",
    "PIL": "pillow",
}


def kinds_in(annotation: object) -> set[type[BaseModel]]:
    """Return all models that an annotation names, through others' fields too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return {annotation}.union(*(kinds_in(field.annotation) for field in fields))
    return set().union(*(kinds_in(one) for one in get_args(annotation)))


def test_every_key_of_a_scenario_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    documented = {key for row in rows for key in re.findall(r"`([a-z0-9_]+)`", row)}
    # What `person = {column, form}` has is said in the row of `person`.
    known = {field for kind in kinds_in(Scenario) - {PersonColumn} for field in kind.model_fields}
    containers = {"data", "partition", "federation", "model", "training", "privacy", "encryption", "faults"}
    containers |= {"columns", "audit", "besides", "purpose", "augment", "schedule", "lots"}
    assert documented == known - containers


def test_every_key_of_a_silos_law_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "silo.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    documented = {key for row in rows for key in re.findall(r"`([a-z_]+)`", row)}
    assert documented == {field for kind in LAW if kind is not law.SiloEncryptionConfig for field in kind.model_fields}


def test_every_key_of_a_federations_files_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "provision.md").read_text(encoding="utf-8")
    tables = text.split("\n## `server.toml`")
    assert len(tables) == 2
    for part, kinds in zip(tables, ((FederationFile, ServerPlace, SiloEntry), (ServerFile,)), strict=True):
        rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
        documented = {key for row in rows for key in re.findall(r"^ `([a-z_]+)` $", row)}
        assert documented == {field for kind in kinds for field in kind.model_fields}
    (example,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    federation = FederationFile.model_validate(tomllib.loads(example))
    assert [scenario.name for scenario in read_scenarios(federation, ROOT)] == ["hospitals"]


def test_every_verb_of_the_administrator_is_documented() -> None:
    text = (ROOT / "docs" / "provision.md").read_text(encoding="utf-8")
    known = {command.name for command in authority_app.registered_commands}
    assert set(re.findall(r"^\| `fedmodel authority ([a-z]+)", text, flags=re.MULTILINE)) == known


def test_the_examples_of_a_table_are_ones_that_are_read(tmp_path: Path) -> None:
    scenarios, silo = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("scenarios.md", "silo.md"))
    (declared,) = re.findall(r"```toml\n(\[data\].*?)```", scenarios, flags=re.DOTALL)
    config = TableConfig.model_validate(tomllib.loads(declared)["data"])
    (csv,) = re.findall(r"```csv\n(.*?)```", scenarios, flags=re.DOTALL)
    (tmp_path / "admissions.csv").write_text(csv, encoding="utf-8")
    assert len(table_records(config, TableSource(csv=str(tmp_path / "admissions.csv")))) == 3
    places = re.findall(r"```toml\n(\[tables.*?)```", silo, flags=re.DOTALL)
    sources = [TableSource.model_validate(tomllib.loads(place)["tables"][config.data_set]) for place in places]
    assert [source.database for source in sources] == [None, "postgresql", None, None, None, None]
    assert sum(source.files is not None for source in sources) == 2


def test_every_package_is_in_the_wheel() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = [path.parent for name in PACKAGES for path in (ROOT / name).rglob("__init__.py")]
    assert sorted(declared) == sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)


def test_every_dependency_has_its_line_in_the_decisions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (DECISIONS / "dependencies.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name = re.split(r"[\[<>=!~]", requirement)[0]
        assert name in table, requirement


def test_a_dependency_is_imported_where_its_owner_is_and_nowhere_else() -> None:
    text = (DECISIONS / "dependencies.md").read_text(encoding="utf-8")
    owners = {}
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| Dependency"):
            cells = [cell.strip() for cell in line.split("|")]
            for name in re.sub(r"\(.*?\)|\[.*?\]", "", cells[1]).split(","):
                owners[name.split()[0].lower().replace("-", "_")] = cells[3]
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*.py"):
            here = path.relative_to(ROOT).as_posix()
            for imported in imported_packages(path) - sys.stdlib_module_names - set(PACKAGES):
                owner = owners[_IMPORTED_AS.get(imported, imported)]
                places = re.findall(r"`([\w./]+)`", owner)
                assert owner == "everywhere" or any(here.startswith(place) for place in places), (imported, here)


def imported_packages(path: Path) -> set[str]:
    """The first words of what a file imports, lazily too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_readme_and_commands_name_only_commands_that_exist_and_all_nouns() -> None:
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/commands.md"))
    groups = {
        group.name: {command.name for command in group.typer_instance.registered_commands}
        for group in main.app.registered_groups
        if group.typer_instance is not None
    }
    commands = {command.name or getattr(command.callback, "__name__", "") for command in main.app.registered_commands}
    commands.add("scenarios")  # a noun that is a verb by itself
    named = set()
    for line in re.findall(r"^fedmodel (.+)$", text, flags=re.MULTILINE):
        first, second = line.split()[:2]
        assert first in commands or second in groups[first], line
        named.add(first)
    assert named >= groups.keys()
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for target in re.findall(r"^make ([a-z]+)", text, flags=re.MULTILINE):
        assert target in targets


def test_every_path_that_a_document_names_is_there() -> None:
    """In backticks from the root, or as a link from the page."""
    here = r"`((?:benchmarks|fedmodel|clients|server|scenarios|docs|tests)/[\w./-]+)`"
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for path in re.findall(here, text):
            assert (ROOT / path).exists(), (page, path)
        for path in re.findall(r"\]\(([\w./-]+)[)#]", text):
            assert (page.parent / path).exists(), (page, path)


def test_every_decision_has_its_sections_its_number_and_its_line_in_the_index() -> None:
    index = re.findall(r"^- \[(\d{4}) (.+)\]\((\S+)\)$", (DECISIONS / "README.md").read_text("utf-8"), re.MULTILINE)
    decisions = sorted(page.name for page in DECISIONS.iterdir() if page.name not in {"README.md", "dependencies.md"})
    assert [name for _, _, name in index] == decisions
    assert [name[:5] for name in decisions] == [f"{number:04d}-" for number in range(1, len(decisions) + 1)]
    for number, title, name in index:
        text = (DECISIONS / name).read_text(encoding="utf-8")
        assert number == name[:4]
        assert text.startswith(f"# {title}\n"), name
        headings = re.findall(r"^#+ .*", text, re.MULTILINE)
        assert headings[1:] == ["## Context", "## Decision", "## Consequences"], name
        assert all(part.strip() for part in re.split(r"^#+ .*", text, flags=re.MULTILINE)[2:]), name


def test_every_test_that_a_document_names_is_there() -> None:
    """A claim that a test is said to show is one that somebody can run."""
    named = {
        (page.name, path, name)
        for page in (ROOT / "docs").rglob("*.md")
        for path, name in re.findall(r"\b(tests/[\w./-]+\.py)::(\w+)", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 30
    for page, path, name in sorted(named):
        assert name in _tests_of(ROOT / path), f"{page} names {path}::{name}, which is not there"


def test_every_row_of_the_threat_model_names_a_test() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    covered = text[: text.index("## Not covered")]
    rows = [line for line in covered.splitlines() if line.startswith("| **")]
    assert len(rows) >= 10
    for row in rows:
        assert "tests/" in row or "out of scope" in row, row


def test_every_line_of_the_troubleshooting_table_is_one_that_the_code_says() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    table = text[text.index("## Troubleshooting") : text.index("## Limits")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    said = _words_said()
    lines = [
        line for row in rows if " stays " not in row and "`unknown`" not in row for line in re.findall(r"`(.+?)`", row)
    ]
    assert len(lines) > 25
    for line in lines:
        pattern = ".+".join(re.escape(part.strip(" ")) for part in line.split("..."))
        assert re.search(pattern, said), line


@cache
def _words_said() -> str:
    """Return every text in the code, a line each, with a sign where a value stands in it."""
    texts = []
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)):
                    texts.append(text)
                case ast.JoinedStr(values=parts):
                    texts.append(
                        "".join(str(part.value) if isinstance(part, ast.Constant) else "\u2026" for part in parts)
                    )
    return "\n".join(text.replace("\n", " ") for text in texts)


@cache
def _tests_of(path: Path) -> frozenset[str]:
    """Return the names of a file's tests, read without running it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def test_the_parameters_in_the_specification_are_those_that_the_code_chooses() -> None:
    text = (ROOT / "docs" / "secure-aggregation.md").read_text(encoding="utf-8")
    table = text[text.index("## 8. Parameters") : text.index("**Ring.**")]
    rows = [[cell.strip().replace(",", "") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    checked = 0
    for silos, colluding, dropping, bits, degree, threshold in (row for row in rows if row[0].isdigit()):
        planned = plan_topology(int(silos), int(colluding), int(dropping), 40 if bits == "certain" else int(bits))
        assert (planned.degree, planned.threshold) == (int(degree), int(threshold))
        checked += 1
    assert checked == 5


def test_lines_of_prose_are_no_wider_than_a_person_reads() -> None:
    """Tables, headings, code and a test's name, which cannot be broken, may be longer."""
    alone = re.compile(r"[-*\s]*\[[^\]]+\]\([^)]+\)")  # a link, whose address cannot be broken
    wide = [
        f"{page}:{number}"
        for page in pages()
        for number, line in prose(page)
        if len(line) > 100 and " " in line and not alone.fullmatch(line)
    ]
    assert wide == []


def test_no_half_of_a_merge_is_left() -> None:
    left = [
        f"{page}:{number}"
        for page in pages()
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
        if line.startswith(("<<<<<<< ", "||||||| ", ">>>>>>> "))
    ]
    assert left == []


def pages() -> list[Path]:
    """Return all pages that a person reads."""
    names = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")
    return [*(ROOT / name for name in names), *sorted((ROOT / "docs").rglob("*.md"))]


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yield a page's lines that are prose, without what stands before the first word, each with its number."""
    is_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith("    ") and not line.lstrip().startswith(("|", "#")):
            yield number, line.rstrip() if " " in line.strip() else line.strip()


def test_the_picture_of_the_floors_is_that_of_the_contracts() -> None:
    text = floors.PAGE.read_text(encoding="utf-8")
    assert floors.picture() in text, "run: python -m docs.floors"
    rooms = {room.replace(".", "/") for _, rooms in floors.floors() for room in rooms}
    for package in ("fedmodel", "scenarios"):
        found = {path.parent for path in (ROOT / package).glob("*/__init__.py")}
        assert {str(path.relative_to(ROOT)) for path in found} <= rooms
