"""Files in the age format: what opens, what is refused, and that a crash or a full disk leaves the old file."""

from __future__ import annotations

import io
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.crypto import sealed
from fedmodel.crypto.sealed import Opener
from fedmodel.errors import ConfigError, CryptoError
from fedmodel.system import durable
from tests import tools

CHUNK = 65536
BODY = bytes(range(256)) * 1000  # four chunks, the last one short
SECRET, RECIPIENT = sealed.new_age_key()
OTHER_SECRET, OTHER_RECIPIENT = sealed.new_age_key()
OPENER = sealed.opener_from_secret(SECRET)
SEALED = sealed.seal_bytes(BODY, [RECIPIENT])
# Of a passphrase: each costs a second and a gigabyte, so one serves all tests.
PASSPHRASE = "correct horse battery staple"  # noqa: S105

needs_age = tools.needed("age")


@pytest.fixture(scope="module")
def under_passphrase() -> bytes:
    return sealed.seal_bytes_under(b"page", PASSPHRASE)


def key_file(path: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


# --- Round trips -----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_bytes_come_back(data: bytes) -> None:
    assert sealed.open_bytes(sealed.seal_bytes(data, [RECIPIENT]), OPENER) == data


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_file_comes_back_whatever_its_length(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "body.age"
    for source in (data, io.BytesIO(data)):
        sealed.write_sealed(path, source, [RECIPIENT])
        assert sealed.read_sealed(path, OPENER) == data
        sink = io.BytesIO()
        sealed.open_to(path, OPENER, sink)
        assert sink.getvalue() == data


def test_each_recipient_opens_it_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "body.age"
    sealed.write_sealed(path, BODY, [RECIPIENT, OTHER_RECIPIENT])
    for secret in (SECRET, OTHER_SECRET):
        assert sealed.read_sealed(path, sealed.opener_from_secret(secret)) == BODY
    stranger, _ = sealed.new_age_key()
    with pytest.raises(CryptoError, match=r"body\.age: sealed to another key"):
        sealed.read_sealed(path, sealed.opener_from_secret(stranger))


def test_sealing_twice_is_not_the_same_bytes() -> None:
    assert sealed.seal_bytes(BODY, [RECIPIENT]) != SEALED


def test_a_recipient_follows_from_its_secret() -> None:
    assert sealed.recipient_of(f" {SECRET}\n") == RECIPIENT
    assert RECIPIENT.startswith("age1")
    assert SECRET.startswith("AGE-SECRET-KEY-1")


def test_a_passphrase_opens_and_another_does_not(tmp_path: Path, under_passphrase: bytes) -> None:
    assert sealed.open_bytes(under_passphrase, sealed.opener_from_passphrase(PASSPHRASE)) == b"page"
    with pytest.raises(CryptoError, match="the key or the passphrase does not open it"):
        sealed.open_bytes(under_passphrase, sealed.opener_from_passphrase("another"))
    with pytest.raises(CryptoError, match="sealed to another key than the one given, or not in this way"):
        sealed.open_bytes(under_passphrase, OPENER)
    with pytest.raises(CryptoError, match="not in this way"):
        sealed.open_bytes(SEALED, sealed.opener_from_passphrase(PASSPHRASE))
    path = tmp_path / "page.age"
    path.write_bytes(under_passphrase)
    assert sealed.read_sealed(path, sealed.opener_from_passphrase(PASSPHRASE)) == b"page"


def test_a_busy_machine_opens_what_an_idle_one_sealed(under_passphrase: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its short measurement such a machine is slow, and age-rs refuses the work before it begins."""
    real, refused = pyrage.passphrase.decrypt, iter(range(20))

    def measured(data: bytes, passphrase: str) -> bytes:
        if next(refused, None) is not None:
            raise pyrage.DecryptError("Excessive work parameter for passphrase")
        return real(data, passphrase)

    monkeypatch.setattr(sealed.pyrage, "passphrase", SimpleNamespace(decrypt=measured))
    assert sealed.open_bytes(under_passphrase, sealed.opener_from_passphrase(PASSPHRASE)) == b"page"


def test_what_is_too_much_work_at_every_measurement_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(data: bytes, passphrase: str) -> bytes:
        raise pyrage.DecryptError("Excessive work parameter for passphrase")

    monkeypatch.setattr(sealed.pyrage, "passphrase", SimpleNamespace(decrypt=measured))
    with pytest.raises(CryptoError, match="slower to try than this machine allows"):
        sealed.open_bytes(SEALED, sealed.opener_from_passphrase(PASSPHRASE))


@pytest.mark.parametrize(
    ("measured", "kept"), [([12, 18, 20], 18), ([20, 12], 20), ([12, 14, 9, 13, 20], 14), ([10, 10, 10, 10, 10], 10)]
)
def test_a_busy_machine_seals_under_no_less_work(
    measured: list[int], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strongest of a few; a slow machine does what it can."""
    headers = (b"age-encryption.org/v1\n-> scrypt %s %d\nbody" % (b"A" * 22, work) for work in measured)
    encrypt = SimpleNamespace(encrypt=lambda data, passphrase: next(headers))
    monkeypatch.setattr(sealed.pyrage, "passphrase", encrypt)
    assert b" %d\n" % kept in sealed.seal_bytes_under(b"page", PASSPHRASE)


def test_work_is_read_from_what_age_seals(under_passphrase: bytes) -> None:
    assert sealed._work(under_passphrase) >= 10
    assert sealed._work(SEALED) == 0


# --- What does not open ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("junk", [b"", b"age", b"age-encryption.org/v1\n", b"x" * 500, b"age-encryption.org/v2\n-> X"])
def test_what_is_no_age_file_is_refused(junk: bytes) -> None:
    with pytest.raises(CryptoError, match="no age file"):
        sealed.open_bytes(junk, OPENER)


@given(st.integers(min_value=0, max_value=len(SEALED) * 8 - 1))
def test_one_flipped_bit_is_refused(bit: int) -> None:
    changed = bytearray(SEALED)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CryptoError):
        sealed.open_bytes(bytes(changed), OPENER)


@given(st.integers(min_value=0, max_value=len(SEALED) - 1))
def test_a_file_cut_short_anywhere_is_refused(length: int) -> None:
    with pytest.raises(CryptoError):
        sealed.open_bytes(SEALED[:length], OPENER)


def test_a_file_with_something_after_it_is_refused() -> None:
    with pytest.raises(CryptoError, match="not as it was sealed"):
        sealed.open_bytes(SEALED + b"\0", OPENER)


def test_chunks_in_another_order_are_refused() -> None:
    body = len(SEALED) - len(BODY) - 4 * 16
    first, second = SEALED[body : body + CHUNK + 16], SEALED[body + CHUNK + 16 : body + 2 * (CHUNK + 16)]
    with pytest.raises(CryptoError, match="not as it was sealed"):
        sealed.open_bytes(SEALED[:body] + second + first + SEALED[body + 2 * (CHUNK + 16) :], OPENER)


def test_a_stream_cut_between_chunks_gives_a_true_beginning_and_an_error(tmp_path: Path) -> None:
    """The one case where a reader that trusts its sink would be deceived: every chunk there is sound."""
    path = tmp_path / "cut.age"
    body = len(SEALED) - len(BODY) - 4 * 16
    path.write_bytes(SEALED[: body + 2 * (CHUNK + 16)])
    sink = io.BytesIO()
    with pytest.raises(CryptoError, match=r"cut\.age: cut short"):
        sealed.open_to(path, OPENER, sink)
    assert 0 < len(sink.getvalue()) <= 2 * CHUNK
    assert BODY.startswith(sink.getvalue())
    with pytest.raises(CryptoError, match="cut short"):
        sealed.read_sealed(path, OPENER)


def test_a_missing_file_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sealed.read_sealed(tmp_path / "none.age", OPENER)


# --- Recipients, secrets, key files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("recipients", [[], (), RECIPIENT], ids=["list", "tuple", "a word"])
def test_nobody_is_no_recipient(tmp_path: Path, recipients: list[str]) -> None:
    for call in (
        lambda: sealed.seal_bytes(b"", recipients),
        lambda: sealed.write_sealed(tmp_path / "x", b"", recipients),
    ):
        with pytest.raises(ConfigError, match="at least one age recipient"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_wrong_recipient_is_named_and_a_secret_is_not() -> None:
    with pytest.raises(ConfigError, match="'age1wrong' is no age recipient"):
        sealed.seal_bytes(b"", [RECIPIENT, "age1wrong"])
    for text in (SECRET, SECRET.lower(), f" {SECRET}"):
        with pytest.raises(ConfigError, match="an age SECRET key is no age recipient") as raised:
            sealed.check_recipient(text)
        assert SECRET[20:40].lower() not in str(raised.value).lower()


@pytest.mark.parametrize(
    "text",
    ["", "AGE-SECRET-KEY-1QQ", RECIPIENT, SECRET[:-1], SECRET[:-1] + "!"],
    ids=["nothing", "short", "a recipient", "cut", "misspelt"],  # a fresh key is no name of a test
)
def test_a_wrong_secret_is_refused_and_not_shown(text: str) -> None:
    for call in (sealed.opener_from_secret, sealed.recipient_of):
        with pytest.raises(ConfigError, match="not a secret key of age") as raised:
            call(text)
        assert raised.value.__cause__ is None
        assert SECRET[20:40] not in str(raised.value)


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        sealed.opener_from_passphrase("")
    with pytest.raises(ConfigError, match="empty"):
        sealed.seal_bytes_under(b"", "")


def test_a_key_file_may_hold_several_keys_and_comments(tmp_path: Path) -> None:
    path = key_file(tmp_path / "keys.txt", f"# made\n# public key: x\n\n{OTHER_SECRET}\r\n{SECRET}\n")
    assert sealed.open_bytes(SEALED, sealed.opener_from_key_file(path)) == BODY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o440, 0o777])
def test_a_key_file_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path / "keys.txt", mode=mode)
    with pytest.raises(ConfigError, match=rf"{path}: .* mode {mode:04o}.*run: chmod 600 {path}"):
        sealed.opener_from_key_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    sealed.opener_from_key_file(key_file(tmp_path / "keys.txt", mode=mode))


def test_a_key_file_of_another_account_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(tmp_path / "keys.txt")
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_001)
    with pytest.raises(ConfigError, match=rf"{path}: belongs to .*, and this runs as 4000001; .*: chown 4000001 "):
        sealed.opener_from_key_file(path)
    monkeypatch.setattr(os, "geteuid", lambda: own)
    sealed.opener_from_key_file(path)


def test_roots_is_taken_as_a_credential_of_systemd_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(uid: int, mode: int) -> None:
        sealed.check_private_file(tmp_path / "key", os.stat_result((mode, 0, 0, 1, uid, 0, 0, 0, 0, 0)))

    monkeypatch.setattr(os, "geteuid", lambda: 4_000_001)
    for uid in (0, 4_000_002):
        with pytest.raises(ConfigError, match="belongs to"):
            look(uid, 0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    look(0, 0o440)
    look(4_000_001, 0o400)
    with pytest.raises(ConfigError, match="belongs to 4000002"):
        look(4_000_002, 0o400)
    with pytest.raises(ConfigError, match="mode 0444"):
        look(0, 0o444)


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "none.txt"
    for path, words in [
        (missing, "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (key_file(tmp_path / "empty.txt", "# nothing\n"), "no key in it"),
        (key_file(tmp_path / "wrong.txt", "secret words\n"), "not a secret key of age"),
        (key_file(tmp_path / "long.txt", "#" * 70000), "more than 65536 bytes"),
        (key_file(tmp_path / "half.txt", SECRET[:-1]), "not a secret key of age"),
    ]:
        with pytest.raises(ConfigError, match=words) as raised:
            sealed.opener_from_key_file(path)
        assert str(path) in str(raised.value)
        assert "secret words" not in str(raised.value)
        assert SECRET[20:40] not in str(raised.value)


def test_an_opener_shows_no_secret_and_is_not_pickled() -> None:
    for opener, word in [(OPENER, "a key"), (sealed.opener_from_passphrase(PASSPHRASE), "a passphrase")]:
        shown = f"{opener} {opener!r}"
        assert word in shown
        assert SECRET[16:30] not in shown
        assert PASSPHRASE not in shown
        with pytest.raises(TypeError):
            pickle.dumps(opener)
        assert isinstance(opener, Opener)


# --- On disk ---------------------------------------------------------------------------------------------------------


def test_a_sealed_file_is_its_owners_alone_from_the_start(tmp_path: Path) -> None:
    """Seen from inside: the source looks at the folder while the file is written."""
    path = tmp_path / "body.age"
    path.write_bytes(b"old")
    path.chmod(0o666)
    left_behind = tmp_path / "body.age.partial"
    left_behind.write_bytes(b"x")
    left_behind.chmod(0o666)
    modes: list[int] = []
    plain = io.BytesIO(BODY)

    class Looking(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            modes.append(stat.S_IMODE(left_behind.stat().st_mode))
            assert BODY[:64] not in left_behind.read_bytes()
            assert path.read_bytes() == b"old"
            assert {entry.name for entry in tmp_path.iterdir()} == {"body.age", "body.age.partial"}
            return plain.read(size)

    before = os.umask(0)
    try:
        sealed.write_sealed(path, Looking(), [RECIPIENT])  # type: ignore[arg-type]
    finally:
        os.umask(before)
    assert set(modes) == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["body.age"]
    assert sealed.read_sealed(path, OPENER) == BODY


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"theirs")
    (tmp_path / "body.age.partial").symlink_to(elsewhere)
    sealed.write_sealed(tmp_path / "body.age", BODY, [RECIPIENT])
    assert elsewhere.read_bytes() == b"theirs"
    assert not (tmp_path / "body.age").is_symlink()


class Failing(io.RawIOBase):
    """A source of one chunk and then an error."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.given = error, False

    def read(self, size: int = -1) -> bytes:
        if self.given:
            raise self.error
        self.given = True
        return b"x" * size


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt(), ValueError("ours")])
def test_a_source_that_fails_leaves_the_old_file_and_its_own_error(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "body.age"
    sealed.write_sealed(path, b"old", [RECIPIENT])
    with pytest.raises(type(error)) as raised:
        sealed.write_sealed(path, Failing(error), [RECIPIENT])  # type: ignore[arg-type]
    assert raised.value is error
    assert sealed.read_sealed(path, OPENER) == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["body.age"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_sink_that_fails_is_its_own_error_and_not_called_tampering(tmp_path: Path, error: BaseException) -> None:
    class Full(io.RawIOBase):
        def write(self, data: object) -> int:
            raise error

    path = tmp_path / "body.age"
    path.write_bytes(SEALED)
    with pytest.raises(type(error)) as raised:
        sealed.open_to(path, OPENER, Full())  # type: ignore[arg-type]
    assert raised.value is error


def test_a_file_is_on_disk_before_it_is_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, events = tmp_path / "body.age", list[str]()
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append(f"fsync {target.name} {target.stat().st_size > len(BODY) if target.is_file() else ''}".strip())
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append(f"rename {self.name} {target.name}")
        return real_replace(self, target)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    sealed.write_sealed(path, BODY, [RECIPIENT])
    assert events == ["fsync body.age.partial True", "rename body.age.partial body.age", f"fsync {tmp_path.name}"]


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    """In a process of its own whose files may not grow past 100 KB, which fails inside age-rs's write."""
    path = tmp_path / "body.age"
    sealed.write_sealed(path, b"old", [RECIPIENT])
    script = f"""
import resource, signal, sys
from pathlib import Path
from fedmodel.crypto import sealed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    sealed.write_sealed(Path({str(path)!r}), b"x" * 1_000_000, [{RECIPIENT!r}])
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"
    assert sealed.read_sealed(path, OPENER) == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["body.age"]


def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    """128 MiB sealed and opened in a process whose memory grows by less than 24 MiB."""
    script = f"""
from pathlib import Path
from fedmodel.crypto import sealed
class Source:
    left = 128 << 20
    def read(self, size):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)
class Sink:
    size = 0
    def write(self, data):
        self.size += len(data)
        return len(data)
path = Path({str(tmp_path / "large.age")!r})
def peak():
    # Not getrusage, which counts what the parent had at the fork.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
sealed.write_sealed(path, b"", [{RECIPIENT!r}])
before, sink = peak(), Sink()
sealed.write_sealed(path, Source(), [{RECIPIENT!r}])
sealed.open_to(path, sealed.opener_from_secret({SECRET!r}), sink)
print(sink.size, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    size, grown_kib = map(int, done.stdout.split())
    assert size == 128 << 20
    assert grown_kib < 24 * 1024


# --- The real tool ---------------------------------------------------------------------------------------------------


@needs_age
def test_age_opens_what_we_sealed(tmp_path: Path) -> None:
    path = tmp_path / "body.age"
    sealed.write_sealed(path, BODY, [OTHER_RECIPIENT, RECIPIENT])
    identity = key_file(tmp_path / "key.txt")
    done = subprocess.run(["age", "--decrypt", "-i", identity, path], capture_output=True, check=True)
    assert done.stdout == BODY


@needs_age
@pytest.mark.parametrize("armor", [[], ["--armor"]])
def test_we_open_what_age_sealed(tmp_path: Path, armor: list[str]) -> None:
    path = tmp_path / "body.age"
    subprocess.run(["age", *armor, "-r", RECIPIENT, "-o", path], input=BODY, capture_output=True, check=True)
    assert sealed.read_sealed(path, OPENER) == BODY


@needs_age
def test_keys_are_ages_own_both_ways(tmp_path: Path) -> None:
    made = tmp_path / "made.txt"
    subprocess.run(["age-keygen", "-o", made], capture_output=True, check=True)
    recipient = subprocess.run(["age-keygen", "-y", made], capture_output=True, check=True, text=True).stdout.strip()
    assert sealed.open_bytes(sealed.seal_bytes(b"to it", [recipient]), sealed.opener_from_key_file(made)) == b"to it"
    ours = key_file(tmp_path / "ours.txt", f"# ed25519: 00\n{SECRET}\n")
    shown = subprocess.run(["age-keygen", "-y", ours], capture_output=True, check=True, text=True).stdout.strip()
    assert shown == RECIPIENT == sealed.recipient_of(SECRET)


@needs_age
def test_age_opens_what_we_sealed_under_a_passphrase(tmp_path: Path, under_passphrase: bytes) -> None:
    """It asks at the terminal only, so it gets one."""
    path, opened = tmp_path / "page.age", tmp_path / "page"
    path.write_bytes(under_passphrase)
    child, terminal = os.forkpty()
    if child == 0:
        os.execvp("age", ["age", "--decrypt", "-o", str(opened), str(path)])  # noqa: S606
    try:
        _until(terminal, b"passphrase")
        os.write(terminal, PASSPHRASE.encode() + b"\n")
        _until(terminal, None)
    finally:
        os.close(terminal)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert opened.read_bytes() == b"page"


def _until(terminal: int, words: bytes | None) -> None:
    """Read a terminal until it shows some words, or for None until its process has gone."""
    seen = b""
    while words is None or words not in seen.lower():
        try:
            more = os.read(terminal, 1024)
        except OSError:
            more = b""
        if not more:
            assert words is None, seen
            return
        seen += more


def test_durable_replacing_gives_a_file_that_can_be_thrown_away(tmp_path: Path) -> None:
    """What `open_to` is to be used with."""
    path, source = tmp_path / "plain", tmp_path / "cut.age"
    path.write_bytes(b"old")
    source.write_bytes(SEALED[:-1])

    def into(sink: BinaryIO) -> None:
        sealed.open_to(source, OPENER, sink)

    with pytest.raises(CryptoError), durable.replacing(path) as sink:
        into(sink)
    assert path.read_bytes() == b"old"
    assert {entry.name for entry in tmp_path.iterdir()} == {"plain", "cut.age"}
