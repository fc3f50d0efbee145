"""A headless Chromium for tests, through its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE_S = 60.0


def chromium() -> str | None:
    """Return the path of Chromium or Chrome, if it is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """The one page of a browser."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop, self._socket, self._ids = loop, socket, itertools.count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""

        async def answer() -> dict[str, Any]:
            id_ = next(self._ids)
            await self._socket.send_json({"id": id_, "method": method, "params": parameters})
            while True:
                found = json.loads(await self._socket.receive_str(timeout=PATIENCE_S))
                if found.get("id") == id_:
                    assert "error" not in found, found
                    return dict(found["result"])

        return self._loop.run_until_complete(answer())

    def open(self, url: str) -> None:
        """Load a page, as if nothing had been loaded before."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """Return what a JavaScript expression is."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    @property
    def text(self) -> str:
        """The text that is shown."""
        return str(self.value("document.body ? document.body.innerText : ''"))

    def until(self, script: str) -> float:
        """Wait until an expression is true, and return the seconds that it took."""
        began_s = time.monotonic()
        while not self.value(f"Boolean({script})"):
            assert time.monotonic() - began_s < PATIENCE_S, f"not within {PATIENCE_S:g} s: {script}\n{self.text[:3000]}"
            time.sleep(0.05)
        return time.monotonic() - began_s

    def shows(self, *words: str) -> float:
        """Wait until all these words are shown, and return the seconds that it took."""
        return self.until(f"{json.dumps(words)}.every(word => document.body && document.body.innerText.includes(word))")

    def click(self, words: str) -> None:
        """Click the innermost element that shows these words and nothing else."""
        element = (
            f"[...document.querySelectorAll('*')].filter(e => e.innerText && e.innerText.trim() === {json.dumps(words)}).pop()"
        )
        self.until(element)
        place = self.value(
            f"(() => {{const b = {element}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]}})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def picture(self, file: Path) -> None:
        """Save what is shown as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(folder: Path, width: int = 1600, height: int = 900) -> Iterator[Page]:
    """Start a browser whose profile is in the folder, and yield its page."""
    program = chromium()
    assert program is not None
    process = subprocess.Popen(
        [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}",
         "about:blank"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    loop = asyncio.new_event_loop()
    session = None
    try:
        port_file, began_s = folder / "profile" / "DevToolsActivePort", time.monotonic()
        while not (port_file.exists() and port_file.read_text().strip()):
            assert process.poll() is None and time.monotonic() - began_s < PATIENCE_S, "the browser did not start"
            time.sleep(0.05)
        port = port_file.read_text().split()[0]

        async def connect() -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
            session = aiohttp.ClientSession()
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                page = next(one for one in await answer.json() if one["type"] == "page")
            return session, await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

        session, socket = loop.run_until_complete(connect())
        yield Page(loop, socket)
    finally:
        process.terminate()
        process.wait()
        if session is not None:
            loop.run_until_complete(session.close())
        loop.close()
