"""A scenario is accepted whole, or refused in one line that names key, value, rule and the nearest known word."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.config import (
    FederationFile,
    Scenario,
    ServerFile,
    TrainingConfig,
    builtin_scenarios,
    read_federation_file,
    read_scenario,
    read_server_file,
    read_silo_file,
    scenario_from_json,
    scenario_to_toml,
    silo_file_to_toml,
    to_toml,
)
from fedmodel.errors import ConfigError
from fedmodel.provision import scenario_hash
from tests.conftest import TINY

UNITS_TOLD = (
    "known: record (hides one record), person (hides a person, with max_records records at most), client (hides a whole"
    " silo, with max_records records at most)"
)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("privacy.epsilonn=2", "privacy.epsilonn is not a known key; did you mean 'epsilon'?"),
        ("privacy.silo.north.epsilonn=2", "privacy.silo.north.epsilonn is not a known key; did you mean 'epsilon'?"),
        ("privacy.silo.nort.epsilon=2", "'nort', which is no silo of this federation; did you mean 'north'?"),
        ("federation.weights.sout=2.0", "'sout', which is no silo of this federation; did you mean 'south'?"),
        ("model.hiden=[3]", "model.hiden is not a known key; did you mean 'hidden'?"),
        ("model.kind=mlpp", "unknown model 'mlpp'; did you mean 'mlp'?"),
        ("data.partition.min_record=4", "did you mean 'min_records'?"),
        ("data.source=digit", "unknown source 'digit'; did you mean 'digits'?"),
        ("training.optimizer=adan", "did you mean 'adam'?"),
        ("rounds='4'", "rounds = '4' is not accepted"),
        ("rounds=0", "rounds = 0 is not accepted"),
        (
            f"federation.silos={[f's-{n}' for n in range(10_001)]}",
            "'s-25', '... is not accepted: tuple should have",
        ),
        ("privacy.epsilon=true", "privacy.epsilon = True is not accepted"),
        ("privacy.delta=0.0", "privacy.delta = 0.0 is not accepted"),
        ("privacy.delta=1.0", "privacy.delta = 1.0 is not accepted"),
        ("privacy.delta=nan", "privacy.delta = nan is not accepted"),
        ("privacy.noise_multiplier=0", "privacy.noise_multiplier: found 0, which is no noise"),
        ("privacy.noise_multiplier=inf", "privacy.noise_multiplier = inf is not accepted"),
        ("privacy.sample_rate=1.5", "privacy.sample_rate = 1.5 is not accepted"),
        ("privacy.unit=patient", f"privacy.unit = 'patient' is not known; {UNITS_TOLD}"),
        ("privacy.unit=household", f"privacy.unit = 'household' is not known; {UNITS_TOLD}"),
        ("privacy.epsilon=3", "exactly one of epsilon and noise_multiplier, found both"),
        ("federation.silos=['a','a']", "silo 'a' is named twice"),
        ("federation.silos=0", "federation.silos: 0 is no number of silos; name them, or say how many"),
        ("federation.silos=10001", "federation.silos: 10001 is no number of silos"),
        ("federation.silos=2.5", "federation.silos = 2.5 is not accepted"),
        ("federation.silos=true", "federation.silos = True is not accepted"),
        ("federation.silos=['../a']", "federation.silos.0 = '../a' is not accepted"),
        ("federation.cohort=4", "cohort = 4 is more than the 3 silos"),
        ("federation.min_silos=4", "min_silos = 4 is more than the cohort of 3"),
        ("data.reference_range=[2.0, 1.0]", "must rise from low to high"),
        ("data.reference_range=[0.0, 5e-324]", "by 1e-100 at least"),
        ("data.reference_range=[-1e308, 1e308]", "within plus and minus 1e100"),
        ("training.local_epochs=1", "exactly one of local_steps and local_epochs"),
        (
            "training.class_weights=[1, 0]",
            "training.class_weights: the weight of class 1 is 0, and has to be",
        ),
        ("training.class_weights=[-1.0, 1]", "the weight of class 0 is -1, and has to be"),
        ("training.class_weights=[1, 1e7]", "the weight of class 1 is 1e+07, and has to be from 2^-20 to 2^20"),
        ("training.class_weights=[1e-7, 1]", "the weight of class 0 is 1e-07, and has to be"),
        ("training.class_weights=[1, nan]", "training.class_weights.1 = nan is not accepted"),
        ("training.class_weights=[inf, 1]", "training.class_weights.0 = inf is not accepted"),
        ("training.class_weights=[1, true]", "training.class_weights.1 = True is not accepted"),
        ("training.class_weights=9", "training.class_weights = 9 is not accepted"),
        ("training.class_weights=balanced", "training.class_weights = 'balanced' is not accepted"),
        ("rounds.x=1", "rounds is a value, not a section"),
        ("nonsense", "expected key=value"),
    ],
)
def test_refusals_name_key_value_and_way_out(tiny_file: Path, setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_scenario(str(tiny_file), [setting])
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_silo_that_is_called_as_a_kind_is_a_silo(tiny_file: Path) -> None:
    settings = ["federation.silos=['mlp','digits','east']", "privacy.silo.mlp.epsilonn=2"]
    with pytest.raises(ConfigError, match=r"privacy\.silo\.mlp\.epsilonn is not a known key; did you mean 'epsilon'\?"):
        read_scenario(str(tiny_file), settings)


@pytest.mark.parametrize(
    "key", ["unit", "max_grad_norm", "delta", "sample_rate", "expected_batch_size", "noise_multiplier"]
)
def test_privacy_has_no_silent_default(tiny_file: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=r"privacy.*nothing is guessed"):
        read_scenario(str(tiny_file), [f"privacy.{key}="])


def test_class_weights_belong_to_cross_entropy(tiny_file: Path) -> None:
    with pytest.raises(
        ConfigError, match=r'class_weights belongs to loss = "cross-entropy", found \'mse\'; leave it out'
    ):
        read_scenario(str(tiny_file), ["training.loss=mse", "training.class_weights=[1, 9]"])


def test_class_weights_read_back_and_are_hashed_where_they_are_said(tiny_file: Path, tmp_path: Path) -> None:
    """Without them a scenario has the bytes, and so the hash in a silo's law, that it had before there were any."""
    plain = read_scenario(str(tiny_file))
    assert "class_weights" not in plain.model_dump_json()
    weighted = read_scenario(str(tiny_file), ["training.class_weights=[1, 1e6]"])
    assert weighted.training.class_weights == (1.0, 1e6)
    assert scenario_hash(weighted) != scenario_hash(plain)
    (tmp_path / "again.toml").write_text(scenario_to_toml(weighted), encoding="utf-8")
    assert read_scenario(str(tmp_path / "again.toml")) == weighted
    assert scenario_from_json(weighted.model_dump_json(exclude_none=True)) == weighted


JOBS = [f"besides.{name}.{key}" for name in ("b-job", "a-job") for key in ("noise_multiplier=4.0", "bound=9.0")]


def test_what_is_done_besides_reads_back_in_order_and_is_hashed_where_it_is_said(
    tiny_file: Path, tmp_path: Path
) -> None:
    """Without it a scenario has the bytes, and so the hash in a silo's law, that it had before there was any."""
    plain = read_scenario(str(tiny_file))
    assert "besides" not in plain.model_dump_json()
    more = read_scenario(str(tiny_file), JOBS)
    assert scenario_hash(more) != scenario_hash(plain)
    (tmp_path / "again.toml").write_text(scenario_to_toml(more), encoding="utf-8")
    again = read_scenario(str(tmp_path / "again.toml"))
    assert scenario_hash(again) == scenario_hash(more)
    assert scenario_hash(scenario_from_json(more.model_dump_json(exclude_none=True))) == scenario_hash(more)
    assert [again.job_of(number) for number in range(1, again.last_round + 1)] == ["training"] * 2 + ["b-job", "a-job"]
    assert [again.part_of(number) for number in range(1, again.last_round + 1)] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["besides.training.noise_multiplier=4.0", "besides.training.bound=9.0"], "besides names training, which"),
        ([*JOBS, "audit.count=10", "audit.noise_multiplier=1.0"], "audit"),
        ([*JOBS, "privacy.baseline=no-noise"], "besides is released beside what baseline measures"),
        ([*JOBS, "besides.b-job.noise_multiplier=0"], "besides.b-job.noise_multiplier: found 0, which is no noise"),
        ([*JOBS, "besides.b-job.noise_multiplier=0.1"], "besides.b-job.noise_multiplier = 0.1 is not accepted"),
        ([*JOBS, "besides.b-job.bound=0"], "besides.b-job.bound = 0 is not accepted"),
        ([*JOBS, "besides.b-job.bound="], "besides.b-job"),
        ([*JOBS, "besides.b-job.bounds=1.0"], "besides.b-job.bounds is not a known key; did you mean 'bound'?"),
        (["besides.B.noise_multiplier=4.0", "besides.B.bound=9.0"], "besides"),
    ],
)
def test_what_is_done_besides_is_refused_in_one_line(settings: list[str], words: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_scenario(str(tiny_file), settings)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_epsilon_is_bounded(tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"privacy.epsilon = -1 is not accepted"):
        read_scenario(str(tiny_file), ["privacy.noise_multiplier=", "privacy.epsilon=-1"])


def test_unknown_scenario_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hospitals'"):
        read_scenario("hospital")


def test_broken_toml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken.toml: not valid TOML"):
        read_scenario(str(path))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_file_saved_by_an_editor_that_marks_utf8_reads_as_it_does_without_the_mark(
    newline: str, tmp_path: Path
) -> None:
    plain = tmp_path / "tiny.toml"
    plain.write_text(TINY, encoding="utf-8")
    (tmp_path / "w").mkdir()
    marked = tmp_path / "w" / "tiny.toml"
    marked.write_bytes(TINY.replace("\n", newline).encode("utf-8-sig"))
    assert read_scenario(str(marked)) == read_scenario(str(plain))
    for text, read in ((SILO, read_silo_file), (FEDERATION, read_federation_file)):
        marked.write_bytes(text.replace("\n", newline).encode("utf-8-sig"))
        plain.write_text(text, encoding="utf-8")
        assert read(marked) == read(plain)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_a_file_in_another_encoding_is_told_so_with_what_to_do(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.toml"
    path.write_bytes(TINY.replace("three silos", "trois hôpitaux à l’est".replace("’", "'")).encode(encoding))
    for read in (lambda: read_scenario(str(path)), lambda: read_silo_file(path), lambda: read_federation_file(path)):
        with pytest.raises(ConfigError, match=r"saved\.toml: (is not UTF-8 from byte \d+ on; save it as UTF-8)$"):
            read()


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (
            "rounds = 2",
            "rounds\xa0=\xa02",
            r"line 4, .*U\+00A0 \(no-break space\), which is no plain character: type it",
        ),
        ("rounds = 2", "\u3000rounds = 2", r"line 4, .*U\+3000 \(ideographic space\)"),
        ("rounds = 2", "rounds\u200b = 2", r"line 4, .*U\+200B \(zero width space\)"),
        ("rounds = 2", "rounds \uff1d 2", r"line 4, .*U\+FF1D \(fullwidth equals sign\)"),
        ('name = "tiny"', "name = \u201ctiny\u201d", r"line 2, .*U\+201C \(left double quotation mark\)"),
        ('name = "tiny"', "name = \u2018tiny\u2019", r"line 2, .*U\+2018 \(left single quotation mark\)"),
        ('name = "tiny"', "name = \u201etiny\u201c", r"line 2, .*U\+201E \(double low-9 quotation mark\)"),
        ("[-2.0, 2.0]", "[\u22122.0, 2.0]", r"U\+2212 \(minus sign\)"),
        ("[-2.0, 2.0]", "[\u20132.0, 2.0]", r"U\+2013 \(en dash\)"),
        ("[federation]", "\ufeff[federation]", r"line 7, .*U\+FEFF"),
        ("rounds = 2", "rounds = 2\x1a", r"line 4, .*U\+001A"),
        ("rounds = 2", "rounds = 2\0", "null bytes, as UTF-16 has: save it as UTF-8"),
        ('name = "tiny"', 'name = "C:\\data"', "backslash begins an escape: write a path in single quotes"),
        ('name = "tiny"', 'name = "C:\\Users"', "backslash begins an escape: write a path in single quotes"),
        ("\n", "\r", "lines end in a carriage return alone"),
        ("rounds = 2", "rounds: 2", r"\(at line 4, column 7\)$"),
    ],
)
def test_what_an_editor_made_of_plain_characters_is_told_by_its_name(
    old: str, new: str, cause: str, tmp_path: Path
) -> None:
    path = tmp_path / "saved.toml"
    path.write_bytes(TINY.replace(old, new).encode())
    with pytest.raises(ConfigError, match=r"^saved\.toml: not valid TOML: ") as refused:
        read_scenario(str(path))
    assert re.search(cause, str(refused.value)), str(refused.value)
    path.write_bytes(SILO.encode() + new.encode() + b" =")
    with pytest.raises(ConfigError, match=r"^saved\.toml: not valid TOML: "):
        read_silo_file(path)


def test_tabs_and_letters_in_quotes_are_plain(tmp_path: Path) -> None:
    path = tmp_path / "saved.toml"
    path.write_bytes(
        TINY.replace(" = ", "\t=\t").replace("three silos", "trois h\u00f4pitaux \u2013 \u201cici\u201d").encode()
    )
    assert read_scenario(str(path)).summary.startswith("trois h\u00f4pitaux \u2013 \u201cici")


@pytest.mark.parametrize("name", sorted(builtin_scenarios()))
def test_resolved_scenario_reads_back_the_same(name: str, tmp_path: Path) -> None:
    scenario = read_scenario(name)
    path = tmp_path / "scenario.toml"
    path.write_text(scenario_to_toml(scenario), encoding="utf-8")
    assert read_scenario(str(path)) == scenario
    assert scenario_from_json(scenario.model_dump_json(exclude_none=True)) == scenario


def test_a_scenario_without_seed_gets_one_and_keeps_it(tiny_file: Path) -> None:
    tiny_file.write_text(TINY.replace("seed = 5", ""), encoding="utf-8")
    drawn = {read_scenario(str(tiny_file)).seed for _ in range(3)}
    assert len(drawn) == 3
    assert None not in drawn


def test_a_silo_overrides_only_what_it_declares(tiny_file: Path) -> None:
    scenario = read_scenario(
        str(tiny_file),
        [
            "privacy.silo.north.epsilon=2.0",
            "privacy.silo.north.sample_rate=0.25",
            "training.local_steps=",
            "training.local_epochs=1",
        ],
    )
    north, south = scenario.plan("north"), scenario.plan("south")
    assert (north.epsilon, north.noise_multiplier, north.sample_rate, north.steps_per_round) == (2.0, None, 0.25, 4)
    assert (south.epsilon, south.noise_multiplier, south.sample_rate, south.steps_per_round) == (None, 2.0, 0.5, 2)
    assert north.steps == 8


def test_plan_and_loop_agree_on_an_epoch_for_every_size() -> None:
    """`int(1 / q)` with q = 1/n falls one short for 312 of the first 5,000 n; ours never does."""
    config = TrainingConfig(loss="mse", optimizer="sgd", learning_rate=1.0, local_epochs=1)
    assert sum(int(1 / (1 / n)) != n for n in range(1, 5001)) == 312
    assert [n for n in range(1, 5001) if config.steps_per_round(1 / n) != n] == []


_KEYS = [
    *("rounds", "seed", "stop_below_loss", "data.held_out", "data.features", "data.partition.min_records"),
    *("federation.silos", "federation.cohort", "federation.weights.left", "model.hidden", "model.init_value", "model"),
    *("training.local_epochs", "training.learning_rate", "privacy.epsilon", "privacy.delta", "privacy.sample_rate"),
    *("privacy.expected_batch_size", "privacy.silo.left.delta", "privacy.silo"),
]
_ODD = [
    "-1",
    "0",
    "nan",
    "inf",
    "1e300",
    "5e-324",
    "9" * 5001,
    "true",
    "[]",
    "{}",
    "''",
    "[" * 900,
    "1979-05-27",
    "\x00",
]


@given(st.sampled_from(_KEYS), st.one_of(st.text(max_size=30), st.sampled_from(_ODD)))
def test_no_override_ends_in_anything_but_a_scenario_or_one_refusal(key: str, text: str) -> None:
    path = builtin_scenarios()["quickstart"]
    with contextlib.suppress(ConfigError):
        assert read_scenario(str(path), [f"{key}={text}"]).plan("left").steps >= 1


FEDERATION = """
name = "northern"
scenarios = ["hospitals"]
escrow = []

[server]
hosts = ["fl.example.org", "10.0.0.1", "::1"]
port = 9443

[[silos]]
name = "aurora"

[[silos]]
name = "borealis"
"""
SERVER = """
federation = "northern"
listen = "[::]:9443"
hosts = ["fl.example.org"]
"""
SILO = """
name = "aurora"

[budgets]

[encryption]
bound = 1.0

[connection]
address = "fl.example.org:9443"
"""
RECIPIENT = "age1525sq9z2423h4xmenngsv9ads4zkek2c5u2e42qjyla3vpqvpfesz0zp9x"


def test_a_federations_files_read_back_the_same(tmp_path: Path) -> None:
    for text, name, read in (
        (FEDERATION, "federation.toml", read_federation_file),
        (SERVER, "server.toml", read_server_file),
        (SILO, "silo.toml", read_silo_file),
    ):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        found = read(path)
        path.write_text(to_toml(found), encoding="utf-8")
        assert read(path) == found
    federation = read_federation_file_of(tmp_path, FEDERATION)
    assert (federation.post_quantum, federation.days, federation.seal) == (False, 397, "key-file")
    assert federation.server.address == "fl.example.org:9443"
    assert ServerFile(federation="a", listen="0.0.0.0:1", hosts=("b",)).device == "auto"


def read_federation_file_of(folder: Path, text: str) -> FederationFile:
    path = folder / "federation.toml"
    path.write_text(text, encoding="utf-8")
    return read_federation_file(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name =", "nane =", "federation.toml: nane is not a known key; did you mean 'name'?"),
        (
            "escrow = []",
            "post_quantun = true",
            "federation.toml: post_quantun is not a known key; did you mean 'post_q",
        ),
        ("port =", "prot =", "federation.toml: server.prot is not a known key; did you mean 'port'?"),
        ('name = "borealis"', 'nmae = "borealis"', "federation.toml: silos.1.nmae is not a known key; did you mean 'n"),
        ("escrow = []", 'seal = "keyfile"', "seal = 'keyfile' is not known; did you mean 'key-file'?"),
        ("escrow = []", "days = 0", "days = 0 is not accepted"),
        ("escrow = []", f'escrow = ["{RECIPIENT[:-1]}"]', "escrow.0"),
        ("escrow = []", 'escrow = ["AGE-SECRET-KEY-1QQ"]', "escrow.0"),
        ('"borealis"', '"aurora"', "silo 'aurora' is named twice"),
        ('"borealis"', '"server"', "a silo cannot be called 'server'"),
        ('"borealis"', '"authority"', "a silo cannot be called 'authority'"),
        ('"borealis"', '"../b"', "silos.1.name = '../b' is not accepted"),
        ('"10.0.0.1"', '"10.0.0"', "'10.0.0' is neither a host's name, in lower case, nor an address"),
        ('"10.0.0.1"', '"fl.example.org:9443"', "the port stands under server.port"),
        ('"10.0.0.1"', '"*.example.org"', "is neither a host's name"),
        ('"10.0.0.1"', '"FL.example.org"', "in lower case"),
        ("port = 9443", "port = 65536", "server.port = 65536 is not accepted"),
        ('scenarios = ["hospitals"]', "", "scenarios is missing; add it"),
        ('scenarios = ["hospitals"]', "scenarios = []", "scenarios = [] is not accepted"),
    ],
)
def test_a_federations_file_is_refused_in_one_line(old: str, new: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_federation_file_of(tmp_path, FEDERATION.replace(old, new, 1))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SILO.replace("address", "adress"), "silo.toml: connection.adress is not a known key; did you mean 'address'?"),
        (SILO.replace(":9443", ""), "'fl.example.org' is no address; write \"host:port\""),
        (SILO.replace(":9443", ":0"), "has no port from 1 to 65535 behind the colon"),
        (SILO.replace(":9443", ":70000"), "has no port from 1 to 65535 behind the colon"),
        (SILO.replace("fl.example.org", "::1"), "is no address"),
        (f'device = "gpu"\n{SILO}', "device: 'gpu' is not known"),
        (f'post_quantum_servers = ["ab"]\n{SILO}', "post_quantum_servers.0 = 'ab' is not accepted"),
    ],
)
def test_where_a_silo_finds_its_server_is_refused_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "silo.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_silo_file(path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (read_federation_file, read_server_file, read_silo_file):
        with pytest.raises(ConfigError, match=r"nowhere\.toml: .*cannot be read"):
            read(tmp_path / "nowhere.toml")


SAID = """
[purpose]
statement = "Find masses for a second reading."
controller = "North Trust"
"""


def test_a_purpose_is_part_of_a_scenario_and_one_that_is_not_said_leaves_its_hash(
    tiny: Scenario, tmp_path: Path
) -> None:
    assert "purpose" not in tiny.model_dump_json()
    path = tmp_path / "said.toml"
    path.write_text(scenario_to_toml(tiny) + SAID, encoding="utf-8")
    said = read_scenario(str(path))
    assert said.purpose is not None
    assert (said.purpose.controller, said.purpose.contact) == ("North Trust", None)
    assert said.model_copy(update={"purpose": None}) == tiny
    assert scenario_hash(said) != scenario_hash(tiny)
    assert scenario_from_json(said.model_dump_json()) == said


@pytest.mark.parametrize(
    "said", ["two\\nlines", "\\u202egnp.exe", "", "x" * 401], ids=["lines", "turned", "empty", "long"]
)
def test_a_purpose_is_one_line_that_acts_on_nobody(said: str, tiny: Scenario, tmp_path: Path) -> None:
    path = tmp_path / "said.toml"
    path.write_text(scenario_to_toml(tiny) + SAID.replace("North Trust", said), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"purpose\.controller"):
        read_scenario(str(path))


def test_a_law_says_who_answers_and_one_that_does_not_is_the_text_of_before(tmp_path: Path) -> None:
    path = tmp_path / "silo.toml"
    path.write_text(SILO, encoding="utf-8")
    law = read_silo_file(path)
    assert "controller" not in silo_file_to_toml(law)
    path.write_text(f'{SILO}\n[controller]\nname = "North Trust"\n', encoding="utf-8")
    said = read_silo_file(path)
    assert said.controller is not None
    assert said.controller.name == "North Trust"
    assert silo_file_to_toml(said) == silo_file_to_toml(law) + '\n[controller]\nname = "North Trust"\n'


def test_a_number_of_silos_names_them_and_is_the_scenario_that_names_them(tiny_file: Path) -> None:
    counted = read_scenario(str(tiny_file), ["federation.silos=12"])
    names = [f"silo-{number:04d}" for number in range(12)]
    assert list(counted.federation.silos) == names
    named = read_scenario(str(tiny_file), [f"federation.silos={names}"])
    assert (counted, counted.model_dump_json()) == (named, named.model_dump_json())
    assert len(read_scenario(str(tiny_file), ["federation.silos=10000"]).federation.silos) == 10_000
