"""`fedmodel provision` and `fedmodel authority`, as an administrator meets them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from clients.policy import check_code
from fedmodel.config import read_scenario
from fedmodel.crypto import openers
from fedmodel.errors import ConfigError, PolicyRefused
from fedmodel.kinds import own_code
from fedmodel.provision import read_law, read_server_law
from fedmodel.system import packages
from scenarios.cli import provision, unlocking
from scenarios.deployment import runs
from tests import packaged
from tests.conftest import TINY
from tests.federations import MASKED, Federation, federation, federation_toml, issued, pristine
from tests.scenarios.cli.test_main import Run, run

__all__ = ["federation", "pristine", "run"]


@pytest.fixture
def written(run: Run) -> Path:
    (run.folder / "tiny.toml").write_text(TINY + MASKED)
    path = run.folder / "federation.toml"
    path.write_text(federation_toml())
    return path


def test_kits_are_made_and_the_table_fits_and_tells_no_secret(
    run: Run, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("provision", str(written), "--out", "kits") == 0, run.err
    kits = run.folder / "kits"
    assert {path.name for path in kits.iterdir()} == {"authority", "server", "silos", "keys"}
    assert "Federation northern: 3 silos; roster 1, good until" in run.out
    assert "Compare all 12 groups of a party by telephone (199 bits)" in run.out
    assert "bring it another way than the kit" in run.out
    table = [line for line in run.out.splitlines() if line[:1] in "┃│"]
    assert max(map(len, table)) <= 80
    assert [line.split()[1] for line in table if line.split()[1].isalpha()] == [
        "party", "authority", "server", "north", "south", "west"
    ]  # fmt: skip
    for key in (kits / "keys").iterdir():
        assert key.read_text().splitlines()[-1] not in run.out + run.err


def test_what_is_made_is_told_as_json_and_shown_alike_from_every_kit(run: Run, written: Path) -> None:
    made = run.json("provision", str(written), "--out", "kits")
    assert made["members"][0] == {"name": "server", "role": "server"}
    assert list(made["fingerprints"]) == ["authority", "server", "north", "south", "west"]
    for place in ("kits", "kits/server", "kits/silos/north"):
        shown = run.json("authority", "show", place)
        assert shown["fingerprints"] == made["fingerprints"]
        assert shown["expiring"] == []


def test_a_silos_code_is_told_file_by_file_and_whether_its_law_names_it(
    run: Run, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # what is to be copied is not broken
    assert run("provision", str(written), "--out", "kits") == 0, run.err
    kit = run.folder / "kits" / "silos" / "north"
    told = run.json("silo", "policy", str(kit), "--code")["code"]
    assert told["files"] == packages.code_files()
    assert (told["hash"], told["named"]) == (packages.code_hash(), True)
    assert run("silo", "policy", str(kit), "--code") == 0
    *lines, last = run.out.splitlines()
    assert lines[-len(told["files"]) :] == [f"{digest}  {name}" for name, digest in told["files"].items()]
    assert f"with hash {told['hash']}, which silo.toml names." in last

    law = kit / "silo.toml"
    law.write_text(law.read_text().replace(told["hash"], packages.installed_hash()))  # as before, over all files
    assert not run.json("silo", "policy", str(kit), "--code")["code"]["named"]
    with pytest.raises(PolicyRefused, match=rf"has hash {told['hash'][:16]}.*fedmodel silo policy KIT --code"):
        check_code(read_law(kit))


def test_packages_of_ones_own_are_in_the_laws_that_are_written_and_in_what_a_silo_says(
    run: Run, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    tiny = run.folder / "tiny.toml"
    tiny.write_text(tiny.read_text().replace('kind = "mlp"', f'use = "{packaged.USE}"'))
    assert run("provision", str(written), "--out", "kits") == 2
    assert "tiny: model.use = 'ownpackage.nets:net' is code of no package that is listed under [packages]" in run.err
    written.write_text(written.read_text() + '\n[packages]\nown-package = "1.2"\n')
    assert run("provision", str(written), "--out", "kits") == 2
    assert "package own-package 1.2 is listed, and not installed here" in run.err
    site = run.folder / "site"
    packaged.install(site)
    with packaged.on_the_path(site):
        assert run("provision", str(written), "--out", "kits") == 0, run.err
        assert "ownpackage" not in sys.modules  # its files are hashed, and none is run
        kit = run.folder / "kits" / "silos" / "north"
        law = read_law(kit)
        assert law.packages == read_server_law(run.folder / "kits" / "server").packages == {"own-package": "1.2"}
        assert law.code == (packages.code_hash({"own-package": "1.2"}),)
        assert run("silo", "policy", str(kit), "--code") == 0
        assert "A scenario may name code of own-package 1.2, as installed here: it runs with all the rights" in run.out
        assert "  own-package==1.2/ownpackage/layers.py" in run.out
        assert f"with hash {law.code[0]}, which silo.toml names." in run.out


def test_packages_of_strategies_are_in_the_servers_file_alone_by_their_hash(run: Run, written: Path) -> None:
    site = run.folder / "site"
    steps = "class Steps:\n    def apply(self, model, mean, state):\n        return model + mean, state\n"
    packaged.install(site, "own-steps", "0.3", {"ownsteps.py": steps})
    tiny = run.folder / "tiny.toml"
    tiny.write_text(tiny.read_text().replace("[federation]\n", '[federation]\nstrategy = "ownsteps:Steps"\n'))
    written.write_text(written.read_text() + '\n[strategy_packages]\nown-steps = "0.3"\n')
    assert run("provision", str(written), "--out", "kits") == 2
    assert "package own-steps 0.3 is listed, and not installed here" in run.err
    assert not (run.folder / "kits").exists()
    with packaged.on_the_path(site):
        assert run("provision", str(written), "--out", "kits") == 0, run.err
        home = run.folder / "kits" / "server"
        law = read_server_law(home)
        assert law.strategy_packages["own-steps"].sha256 == packages.package_hash("own-steps", "0.3")
        assert law.packages == read_law(run.folder / "kits" / "silos" / "north").packages == {}
        with (site / "ownsteps.py").open("a") as changed:
            changed.write("#")
        with pytest.raises(ConfigError, match=r"the files of package own-steps 0\.3 on this machine have hash"):
            runs.submit(home, read_scenario(str(tiny)))
        assert not (home / "runs").exists()
    own_code.close()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "northern"', 'nane = "northern"', "federation.toml: nane is not a known key; did you mean 'name'?"),
        ("hosts =", "host =", "federation.toml: server.host is not a known key; did you mean 'hosts'?"),
        ("[[silos]]\nname", "[[silos]]\nnam", "federation.toml: silos.0.nam is not a known key; did you mean 'name'?"),
        ('["tiny.toml"]', '["tinny.toml"]', "no such file and no built-in scenario of that name"),
        ('["tiny.toml"]', '["hospitals"]', "names 'aurora', no silo of the federation"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(old: str, new: str, words: str, run: Run, written: Path) -> None:
    written.write_text(written.read_text().replace(old, new, 1))
    assert run("provision", str(written), "--out", "kits") == 2
    assert words in run.err
    assert run.err.count("\n") == 1
    assert "Traceback" not in run.err
    assert {path.name for path in run.folder.iterdir()} == {"tiny.toml", "federation.toml"}


def test_a_place_that_is_taken_is_one_line(run: Run, written: Path) -> None:
    (run.folder / "kits").mkdir()
    (run.folder / "kits" / "mine").touch()
    assert run("provision", str(written), "--out", "kits") == 2
    assert "kits: is there already; name a new folder, or an empty one" in run.err


def test_a_silo_is_added_rotated_renewed_and_revoked(run: Run, written: Path) -> None:
    run.json("provision", str(written), "--out", "kits")
    key = ("--key-file", "kits/keys/authority.key")
    (run.folder / "more.toml").write_text((TINY + MASKED).replace('"west"]', '"west", "east"]'))
    added = run.json("authority", "add", "kits", "east", "--scenario", "more.toml", *key)
    assert added["serial"] == 2
    assert added["kit"] == "kits/silos/east"
    rotated = run.json("authority", "rotate", "kits", "west", *key)
    assert rotated["fingerprints"]["west"] != added["fingerprints"]["west"]
    renewed = run.json("authority", "renew", "kits", *key)
    assert renewed["fingerprints"] == rotated["fingerprints"]
    revoked = run.json("authority", "revoke", "kits", "north", "--reason", "left", *key)
    assert [member["name"] for member in revoked["members"]] == ["server", "east", "south", "west"]
    assert run("authority", "show", "kits") == 0
    assert "Revoked: north on" in run.out
    assert run("authority", "revoke", "kits", "nobody", "--reason", "left", *key) == 2
    assert "'nobody' is no member" in run.err


def test_passphrases_come_from_a_file_of_the_owners_own(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "words.toml"
    path.write_text('north = "correct horse battery"\nsouth = "short"\n')
    path.chmod(0o644)
    with pytest.raises(unlocking.ConfigError, match="0644"):
        unlocking.passphrases_of(path)
    path.chmod(0o600)
    of = unlocking.passphrases_of(path)
    assert of("north") == "correct horse battery"
    with pytest.raises(unlocking.ConfigError, match="has 5 characters, fewer than 12"):
        of("south")
    with pytest.raises(unlocking.ConfigError, match="says no passphrase of 'west'"):
        of("west")
    path.write_text('north = "correct horse battery"\nsouth = "correct horse battery"\n')
    with pytest.raises(unlocking.ConfigError, match="two parties have one passphrase"):
        unlocking.passphrases_of(path)
    path.write_text("north = correct horse battery")
    with pytest.raises(unlocking.ConfigError) as refused:
        unlocking.passphrases_of(path)
    assert "horse" not in str(refused.value)


def test_a_passphrase_is_typed_hidden_and_a_new_one_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def prompt(text: str, **how: object) -> str:
        asked.append({"text": text, **how})
        return "correct horse battery"

    monkeypatch.setattr(typer, "prompt", prompt)
    assert unlocking.typed("the authority") == unlocking.typed_twice("north") == "correct horse battery"
    assert [one["hide_input"] for one in asked] == [True, True]
    assert [one.get("confirmation_prompt", False) for one in asked] == [False, True]


def dumpable() -> bool:
    return bool(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))


@pytest.fixture
def open_to_dumps() -> Iterator[None]:
    """This process is one whose memory others may read, as it was before."""
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    assert dumpable()
    yield
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, limit)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
@pytest.mark.usefixtures("open_to_dumps")
@pytest.mark.parametrize("way", ["prompt", "typed", "typed_twice", "key_file", "passphrases_of", "provision"])
def test_memory_is_kept_from_others_before_a_secret_is_in_it(
    way: str, federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def said(*_: object, **__: object) -> str:
        seen.append(dumpable())
        return "correct horse battery"

    words = tmp_path / "words.toml"
    words.write_text('north = "correct horse battery"\n')
    words.chmod(0o600)
    monkeypatch.setattr(typer, "prompt", said)
    monkeypatch.setattr(openers, "check_private_file", said)
    monkeypatch.setattr(openers, "opener_from_key_file", said)
    monkeypatch.setattr("fedmodel.config.read_federation_file", said)
    ways: dict[str, Callable[[], object]] = {
        "prompt": lambda: openers.ask_opener(None, None, said),
        "typed": lambda: unlocking.typed("the authority"),
        "typed_twice": lambda: unlocking.typed_twice("north"),
        "key_file": lambda: openers.ask_opener(federation.root / "keys" / "north.key", None, str),
        "passphrases_of": lambda: unlocking.passphrases_of(words),
        "provision": lambda: provision.provision(tmp_path / "federation.toml", tmp_path / "kits"),
    }
    with contextlib.suppress(AttributeError):  # what is said is no federation
        ways[way]()
    assert seen == [False]


def test_what_opens_keys_is_one_thing(federation: Federation, tmp_path: Path) -> None:
    key, words = federation.root / "keys" / "north.key", tmp_path / "words"
    words.write_text("correct horse battery\n")
    words.chmod(0o600)
    with pytest.raises(unlocking.ConfigError, match="give one"):
        openers.ask_opener(key, words, str)
    assert "a key" in repr(openers.ask_opener(key, None, str))
    assert "a passphrase" in repr(openers.ask_opener(None, words, str))
    assert "a passphrase" in repr(openers.ask_opener(None, None, lambda: "typed"))


def test_provision_under_passphrases(run: Run) -> None:
    alone = TINY.replace('["north", "south", "west"]', '["north"]').replace("min_silos = 2", "min_silos = 1")
    (run.folder / "tiny.toml").write_text(alone)
    (run.folder / "federation.toml").write_text(federation_toml(("north",), 'seal = "passphrase"'))
    words = run.folder / "words.toml"
    words.write_text("".join(f'{name} = "correct horse {name}"\n' for name in ("authority", "server", "north")))
    words.chmod(0o600)
    made = run.json("provision", "federation.toml", "--out", "kits", "--passphrase-file", "words.toml")
    assert "Tell each party its passphrase another way than the kit." in made["notes"]
    assert not (run.folder / "kits" / "keys").exists()
    (run.folder / "federation.toml").write_text(federation_toml(("north",)))
    assert run("provision", "federation.toml", "--out", "k2", "--passphrase-file", "words.toml") == 2
    assert 'belongs to seal = "passphrase"' in run.err


def test_what_expires_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    one = issued(tmp_path / "x", "days = 20")
    assert run("authority", "show", str(one.kit("server"))) == 0
    assert run.err.count("in 19 days") == 3 or run.err.count("in 20 days") == 3
    assert json.dumps(run.out)
