"""A law's sentences say every rule of it, the strict ones and what is loose."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.sentences import sentences
from fedmodel.config import SiloFile, read_scenario
from fedmodel.provision import law_of
from tests.clients.test_policy import ON, SERVER, changed


@pytest.fixture
def law(tiny_file: Path) -> SiloFile:
    return law_of(read_scenario(str(tiny_file), ON), "north", SERVER.public)


def test_a_law_that_names_nothing_says_so() -> None:
    bare = SiloFile.model_validate({"name": "north", "budgets": {}, "encryption": {"bound": 1.0, "colluding": 1}})
    said = sentences(bare)
    for words in ("It answers no server", "takes part in no scenario", "with no code", "No other data set"):
        assert any(words in sentence for sentence in said)
    assert "It trains nothing: no source of noise is named." in sentences(changed(bare, noise_sources=()))


def test_the_sentences_say_every_rule(law: SiloFile) -> None:
    said = " ".join(sentences(changed(law, hours={"start": "20:00", "end": "06:00", "days": ["mon", "tue"]})))
    for words in (
        "law of silo north", SERVER.public.hex()[:16], law.scenarios[0][:16], law.code[0][:16],
        "On synthetic, at most epsilon", "at delta 0.001 is ever spent, for the presence of one record",
        "Rényi filter of", "is refused", "noise of at least 2.0000 times", "clip of at most 1",
        "from the operating system", "at least 3 silos are asked", "no single update", "No metric leaves",
        "on mon, tue from 20:00 until 06:00 of the day after",
    ):  # fmt: skip
        assert words in said, words
    assert "no count of records, no text of an error" in said
    counting = " ".join(sentences(changed(law, mechanisms=["dp-sgd", "gaussian"])))
    assert "no count of records but with noise, charged as a release, and no text of an error" in counting
    assert "no count of records, " not in counting
    loose = sentences(changed(law, noise_sources=["os", "seeded-unsafe"], encryption={"secure_aggregation": "off"}))
    assert any("SEEDED" in sentence for sentence in loose)
    assert any("UNMASKED" in sentence for sentence in loose)
    lying = changed(law, encryption={**law.encryption.model_dump(), "consistency": "quorum"})
    assert any("does NOT hold against a server that shows" in sentence for sentence in sentences(lying))


def test_one_is_said_in_the_singular(law: SiloFile) -> None:
    few = changed(
        law, smallest_cohort=1, min_silos=1, least_effective_silos=1, encryption={"secure_aggregation": "off"}
    )
    alone = "at least 1 silo is asked in a round and at least 1 is in a sum, of at most"
    assert any(alone in sentence for sentence in sentences(few))
    assert any("at least 3 silos are asked in a round and at least 3 are in a sum" in one for one in sentences(law))
    name, budget = next(iter(law.budgets.items()))
    of_person = {name: {**budget.model_dump(), "unit": "person", "max_records": 1}}
    of_several = {name: {**budget.model_dump(), "unit": "person", "max_records": 4}}
    for budgets, told in ((of_person, "at most 1 record is used"), (of_several, "at most 4 records are used")):
        assert any(f"one person, of whom {told}" in one for one in sentences(changed(law, budgets=budgets)))
