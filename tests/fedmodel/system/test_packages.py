"""The hash that says which code ran."""

from __future__ import annotations

import hashlib
import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import pytest
from flwr.cli.config_utils import get_fab_config, get_fab_metadata

from fedmodel.errors import ConfigError
from fedmodel.system import packages
from fedmodel.wire.bundle import make_bundle


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed in place of ours; what a silo runs of it is `start`, and what that imports."""
    package = tmp_path / "otherpackage"
    (package / "__pycache__").mkdir(parents=True)
    (package / "start.py").write_text("def late():\n    from otherpackage import noise\n")
    (package / "noise.py").write_text("x = 1\n")
    (package / "report.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(packages, "PACKAGES", (package.name,))
    monkeypatch.setattr(packages, "PROGRAM", f"{package.name}.start")
    return package


def test_the_code_hash_changes_with_what_a_silo_runs_and_with_nothing_else(other_package: Path) -> None:
    first, all_of_it = packages.code_hash(), packages.installed_hash()
    assert list(packages.code_files()) == ["otherpackage/noise.py", "otherpackage/start.py"]
    (other_package / "report.py").write_text("x = 2\n")
    assert packages.code_hash() == first
    assert packages.installed_hash() != all_of_it
    for name in ("start.py", "noise.py"):
        before = packages.code_hash()
        (other_package / name).write_text((other_package / name).read_text() + "\n")
        assert packages.code_hash() != before
    before = packages.code_hash()
    (other_package / "noise.py").write_text("from otherpackage import report\n")
    (other_package / "report.py").write_text("x = 3\n")
    changed = packages.code_hash()
    (other_package / "report.py").write_text("x = 4\n")
    assert len({before, changed, packages.code_hash()}) == 3


def test_what_is_listed_of_the_code_is_what_ordinary_tools_compute(other_package: Path) -> None:
    assert packages.code_files()["otherpackage/noise.py"] == hashlib.sha256(b"x = 1\n").hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "noise.cpython-311-x86_64-linux-gnu.so", "noise.so", "noise.pyd", "noise.pyc", "noise/__init__.py", "noise.PYC",
        "__init__.py", "__init__.so", "start.pyw",
    ],
)  # fmt: skip
def test_whatever_python_would_run_in_place_of_a_file_changes_the_code_hash(name: str, other_package: Path) -> None:
    before = packages.code_hash()
    (other_package / name).parent.mkdir(exist_ok=True)
    (other_package / name).write_bytes(b"x = 2\n")
    assert packages.code_hash() != before
    assert packages.bundle_hash(zipped(packages.app_files().items())) == packages.code_hash()


@pytest.mark.parametrize("name", ["report.so", "new.py", "deep/noise.so", "a.pth", "report/__init__.py"])
def test_what_no_silo_could_run_does_not_change_the_code_hash(name: str, other_package: Path) -> None:
    before = packages.code_hash()
    (other_package / name).parent.mkdir(exist_ok=True)
    (other_package / name).write_bytes(b"x = 2\n")
    assert packages.code_hash() == before
    assert packages.bundle_hash(zipped(packages.app_files().items())) == before


def test_what_python_writes_itself_does_not_change_the_code_hash(other_package: Path) -> None:
    before, all_of_it = packages.code_hash(), packages.installed_hash()
    (other_package / "__pycache__" / "noise.cpython-311.pyc").write_bytes(b"x")
    (other_package / "noise.toml").write_bytes(b"x")
    assert (packages.code_hash(), packages.installed_hash()) == (before, all_of_it)


def test_code_that_is_not_python_is_refused(other_package: Path) -> None:
    (other_package / "noise.py").write_text("x = (\n")
    with pytest.raises(ConfigError, match=r"otherpackage/noise\.py: is not Python"):
        packages.code_hash()


def test_nothing_of_a_bundle_is_parsed(other_package: Path) -> None:
    """What a server sends could be made to keep a parser busy, or to bring it down."""
    files = packages.app_files() | {"otherpackage/noise.py": b"x = (\n"}
    assert packages.bundle_hash(zipped(files.items())) != packages.code_hash()


def test_a_folder_that_lies_elsewhere_is_refused(other_package: Path, tmp_path: Path) -> None:
    """Python would follow it, and prefers a folder to a file of the name."""
    (tmp_path / "elsewhere").mkdir()
    (other_package / "noise").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link to a folder"):
        packages.code_hash()


def altered(bundle: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The same bundle with other files."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    change(files)
    return zipped(files.items())


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def bundle() -> bytes:
    return make_bundle()


def test_a_bundle_of_the_installed_packages_has_their_hash(bundle: bytes) -> None:
    assert packages.bundle_hash(bundle) == packages.code_hash()
    assert make_bundle() == bundle


def test_a_bundle_is_one_that_flower_takes(bundle: bytes) -> None:
    assert get_fab_metadata(bundle) == ("fedmodel/fedmodel", version("fedmodel"))
    assert get_fab_config(bundle)["tool"]["flwr"]["app"]["config"].keys() == packages.RUN_KEYS.keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.update({"clients/policy.py": files["clients/policy.py"] + b"\n"}),
        lambda files: files.update({"sitecustomize.py": b"x = 1\n"}),
        lambda files: files.update({"torch/__init__.py": b"x = 1\n"}),
        lambda files: files.update({"clients/policy.so": b"\x7fELF"}),
        lambda files: files.update({"clients/policy.PY": b""}),
        lambda files: files.update({"clients/policy/__init__.py": b""}),
        lambda files: files.pop("clients/policy.py"),
        lambda files: files.update({"clients/moved.py": files.pop("clients/policy.py")}),
    ],
    ids=["changed", "outside the packages", "a library's name", "library", "capitals", "folder", "taken away", "moved"],
)
def test_a_bundle_of_other_code_has_another_hash(bundle: bytes, change: Callable[[dict[str, bytes]], None]) -> None:
    try:
        assert packages.bundle_hash(altered(bundle, change)) != packages.code_hash()
    except ConfigError as refused:
        assert "twice" in str(refused)  # noqa: PT017 - either is right


@pytest.mark.parametrize(
    "name",
    [
        "scenarios/mine.toml",
        "scenarios/report/build.py",
        "server/rounds.py",
        "clients/__pycache__/policy.pyc",
    ],
)
def test_other_than_a_silos_code_does_not_change_a_bundles_hash(name: str, bundle: bytes) -> None:
    """A server may run a newer report, or average in another way: no silo runs that."""
    assert packages.bundle_hash(altered(bundle, lambda files: files.update({name: b"x = 1\n"}))) == packages.code_hash()


@pytest.mark.parametrize(
    "name", ["clients/policy.py", "clients/POLICY.py", "./clients/x.py", "/clients/x.py", "clients/../x.py", "a\\b.py"]
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_bundle_that_can_be_read_in_two_ways_is_refused(bundle: bytes, name: str) -> None:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        files = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with pytest.raises(ConfigError, match="bundle names a file"):
        packages.bundle_hash(zipped([*files, (name, b"x = 1\n")]))


@pytest.mark.parametrize("cut", [0, 10, -1])
def test_what_is_no_zip_file_is_refused(bundle: bytes, cut: int) -> None:
    with pytest.raises(ConfigError, match="ZIP"):
        packages.bundle_hash(bundle[:cut])


def test_a_bundle_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="unpacked"):
        packages.bundle_hash(zipped([("clients/zeros.py", bytes(65 * 2**20))]))


def saying(size: int, content: bytes, method: int = zipfile.ZIP_DEFLATED, *, summed: int | None = None) -> bytes:
    """A bundle whose table says another size of a file, and the checksum of as much, or of `summed` bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("clients/policy.py", content)
    bundle = bytearray(buffer.getvalue())
    table = bundle.rfind(b"PK\x01\x02")
    struct.pack_into("<I", bundle, table + 16, zlib.crc32(content[: size if summed is None else summed]))
    struct.pack_into("<I", bundle, table + 24, size)
    return bytes(bundle)


@pytest.mark.parametrize("size", [0, 100, 2**20 - 1, 2**20 + 1])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_file_of_another_size_than_is_said_is_refused(size: int, method: int) -> None:
    """A reader that stops where it was told to finds another file than one that does not."""
    assert packages.bundle_hash(saying(2**20, bytes(2**20), method))
    for summed in (size, size + 1, 2**20):
        with pytest.raises(ConfigError, match=r"another size than it says|cannot be read as a ZIP"):
            packages.bundle_hash(saying(size, bytes(2**20), method, summed=summed))


def test_a_file_that_says_a_small_size_is_not_unpacked_beyond_it() -> None:
    bundle = saying(100, bytes(64 * 2**20))
    packages.code_hash()  # reads what is installed, and keeps what it found
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError):
            packages.bundle_hash(bundle)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bundle_that_is_packed_in_another_way_is_refused(method: int) -> None:
    """Forty bytes of bzip2 become a megabyte before anybody can look at their number."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("clients/small.py", bytes(2**20))
    with pytest.raises(ConfigError, match="packed in another way"):
        packages.bundle_hash(buffer.getvalue())


def test_a_bundle_of_too_many_files_is_refused() -> None:
    with pytest.raises(ConfigError, match="over 10000 files"):
        packages.bundle_hash(zipped((f"clients/{number}.py", b"") for number in range(10_001)))
