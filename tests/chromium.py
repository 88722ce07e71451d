"""A headless Chromium for tests, driven over a pipe: what a page shows, says, fetches and prints.

Chrome's DevTools protocol needs no port and no library here: with `--remote-debugging-pipe` the browser reads JSON
messages from file descriptor 3 and writes them to 4, each ended by a zero byte. The process is ended by its own id.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from tests import tools

ANSWER_S = 60.0  # a browser that starts on two busy cores takes its time
_FLAGS = [
    "--headless=new",
    "--no-sandbox",  # a container's root has no other way; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]


class ChromiumError(Exception):
    """The browser did not answer, or answered with an error."""


class Chromium:
    """One browser process. Use it as a context; `page` opens one page after another."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._unread = b""
        self._last_id = 0
        self._events: list[dict[str, Any]] = []
        to_browser, self._write = _pipe()
        self._read, from_browser = _pipe()
        self._log = Path(self._folder.name) / "stderr"
        quiet = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._pid = os.posix_spawn(
            program,
            [program, *_FLAGS, f"--user-data-dir={self._folder.name}/profile", "about:blank"],
            {**os.environ, "HOME": self._folder.name},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._log), quiet, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, str(self._log), quiet, 0o600),
                (os.POSIX_SPAWN_DUP2, to_browser, 3),
                (os.POSIX_SPAWN_DUP2, from_browser, 4),
            ],
            setpgroup=0,  # its children go with it
        )
        os.close(to_browser)
        os.close(from_browser)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser: asked first, then by its id."""
        with suppress(ChromiumError, OSError):
            self.call("Browser.close", timeout_s=5)
        until = time.monotonic() + 5
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.killpg(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                break
            time.sleep(0.02)
        os.close(self._write)
        os.close(self._read)
        self._folder.cleanup()

    def call(
        self, method: str, session: str | None = None, timeout_s: float = ANSWER_S, **params: Any
    ) -> dict[str, Any]:
        """Send one command and return its result; events that come meanwhile are kept."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        until = time.monotonic() + timeout_s
        while True:
            answer = self._next(until, method)
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise ChromiumError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            if "method" in answer:
                self._events.append(answer)

    def wait_for(self, method: str, session: str, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """Return the first event of that name, which stays among the events."""
        until = time.monotonic() + timeout_s
        while True:
            for event in self.events(session):
                if event["method"] == method:
                    return event
            self._events.append(self._next(until, method))

    def events(self, session: str) -> list[dict[str, Any]]:
        """Return all events of a page so far."""
        return [event for event in self._events if event.get("sessionId") == session]

    def _next(self, until: float, what: str) -> dict[str, Any]:
        """Read one message."""
        while b"\0" not in self._unread:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise ChromiumError(f"no answer in time to {what}; the browser said: {self._said()}")
            more = os.read(self._read, 1 << 20)
            if not more:
                raise ChromiumError(f"the browser ended during {what}; it said: {self._said()}")
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def _said(self) -> str:
        """Return the end of what the browser wrote to its standard error."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else "nothing"

    @contextmanager
    def page(
        self,
        path: Path,
        width: int = 1280,
        height: int = 844,
        scheme: Literal["light", "dark"] = "light",
        paper: bool = False,
    ) -> Iterator[Page]:
        """Open a file in a page of its own, wait until it is loaded, and close it at the end.

        Args:
            path: An HTML file.
            width: Of the viewport in CSS pixels; under 600 it is a telephone.
            height: Of the viewport.
            scheme: What `prefers-color-scheme` says.
            paper: Whether to lay it out by its style sheet for paper.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        mobile = width < 600 and not paper
        self.call("Emulation.setDeviceMetricsOverride", session,
                  width=width, height=height, deviceScaleFactor=2 if mobile else 1, mobile=mobile)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", session, media="print" if paper else "", features=features)
        url = path.resolve().as_uri()
        failed = self.call("Page.navigate", session, url=url).get("errorText")
        if failed:
            raise ChromiumError(f"{url}: {failed}")
        self.wait_for("Page.loadEventFired", session)
        page = Page(self, session, url)
        page.evaluate("document.fonts.ready.then(() => true)")
        yield page
        self.call("Target.closeTarget", targetId=target)


class Page:
    """One loaded page."""

    def __init__(self, browser: Chromium, session: str, url: str) -> None:
        self._browser, self._session, self.url = browser, session, url

    def evaluate(self, expression: str) -> Any:
        """Evaluate JavaScript in the page, whatever its content security policy says, and return the value."""
        answer = self._browser.call("Runtime.evaluate", self._session,
                                    expression=expression, returnByValue=True, awaitPromise=True)  # fmt: skip
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise ChromiumError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    @property
    def complaints(self) -> list[str]:
        """What the page wrote to the console, what the browser logged about it, and its exceptions."""
        found = []
        for event in self._browser.events(self._session):
            params = event["params"]
            if event["method"] == "Runtime.consoleAPICalled":
                found.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
            elif event["method"] == "Log.entryAdded":
                found.append(params["entry"]["text"])
            elif event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"]["text"])
        return found

    @property
    def requested(self) -> list[str]:
        """The address of everything that the page asked for, itself first."""
        events = self._browser.events(self._session)
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]

    def screenshot(self, whole: bool = True) -> bytes:
        """Return the page, or the first screen of it, as a PNG."""
        more: dict[str, Any] = {}
        if whole:
            size = self._browser.call("Page.getLayoutMetrics", self._session)["cssContentSize"]
            more = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        answer = self._browser.call("Page.captureScreenshot", self._session, format="png", **more)
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """Return the page as its print style sheet puts it on paper."""
        answer = self._browser.call("Page.printToPDF", self._session, preferCSSPageSize=True, printBackground=False)
        return base64.b64decode(answer["data"])


def _pipe() -> tuple[int, int]:
    """Return a pipe's ends, none of them a number that the browser expects something under."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def start() -> Chromium:
    """Start a browser, or skip the test where there is none."""
    return Chromium(str(tools.require("chromium")))
