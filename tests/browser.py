"""A headless browser for tests: opens a page and says what it is like, over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip


@dataclass
class Seen:
    """What a page was like.

    Attributes:
        values: Results of the scripts, in order.
        errors: Lines of the console that are errors or warnings, and exceptions.
        requests: Addresses that the page asked for, but for data addresses.
        screenshot: PNG.
    """

    values: list[Any] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    screenshot: bytes = b""


def find_browser() -> str | None:
    """Path of a Chromium, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def look(
    page: Path | str,
    profile: Path,
    *,
    width: int = 1280,
    height: int = 900,
    dark: bool = False,
    still: bool = False,
    scripts: Sequence[str] = (),
    whole: bool = True,
    scale: float = 1.0,
) -> Seen:
    """Opens a page.

    Args:
        page: A file, or an address.
        profile: A new folder for the browser.
        width: Of the window, pixels.
        height: Of the window, pixels.
        dark: Whether the dark colours are asked for.
        still: Whether less motion is asked for.
        scripts: Expressions evaluated one after another once the page is loaded.
        whole: Whether the screenshot has the whole page, or the window alone.
        scale: Of the screenshot.
    """
    browser = find_browser()
    assert browser is not None
    command = [browser, *OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port, path = _port(profile, process)
        media = {"color-scheme": "dark" if dark else "light", "reduced-motion": "reduce" if still else "no-preference"}
        return asyncio.run(_look(f"ws://127.0.0.1:{port}{path}", page, (width, height), media, scripts, whole, scale))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(profile: Path, process: subprocess.Popen[bytes]) -> tuple[str, str]:
    file, until = profile / "DevToolsActivePort", time.monotonic() + 60
    while time.monotonic() < until:
        if file.is_file() and len(lines := file.read_text().splitlines()) == 2:
            return lines[0], lines[1]
        assert process.poll() is None, f"the browser ended with status {process.returncode}"
        time.sleep(0.05)
    raise TimeoutError("the browser did not start within a minute")


async def _look(
    address: str,
    page: Path,
    size: tuple[int, int],
    media: dict[str, str],
    scripts: Sequence[str],
    whole: bool,
    scale: float,
) -> Seen:
    import aiohttp

    seen = Seen()
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        number, session_id, loaded = 0, None, False

        def note(message: dict[str, Any]) -> None:
            nonlocal loaded
            kind, params = message.get("method"), message.get("params", {})
            if kind == "Page.loadEventFired":
                loaded = True
            elif kind == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                seen.errors.append(str(details.get("exception", {}).get("description", details["text"])))
            elif kind == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                seen.errors.append(" ".join(str(one.get("value")) for one in params["args"]))
            elif kind == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                seen.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif kind == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
                seen.requests.append(params["request"]["url"])

        async def receive() -> dict[str, Any]:
            message: dict[str, Any] = await asyncio.wait_for(socket.receive_json(), 120)
            note(message)
            return message

        async def call(method: str, **params: Any) -> dict[str, Any]:
            nonlocal number
            number += 1
            own = number
            extra = {"sessionId": session_id} if session_id else {}
            await socket.send_json({"id": own, "method": method, "params": params, **extra})
            while True:
                message = await receive()
                if message.get("id") == own:
                    assert "error" not in message, f"{method}: {message['error']}"
                    found: dict[str, Any] = message["result"]
                    return found

        target = (await call("Target.createTarget", url="about:blank"))["targetId"]
        session_id = (await call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await call(f"{domain}.enable")
        await call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=scale,
            mobile=size[0] < 600,
        )
        features = [{"name": f"prefers-{name}", "value": value} for name, value in media.items()]
        await call("Emulation.setEmulatedMedia", features=features)
        # The event of the blank page must not pass for that of the page.
        loaded = False
        await call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not loaded:
            await receive()
        for script in scripts:
            done = await call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
            assert "exceptionDetails" not in done, f"{script}: {done['exceptionDetails']}"
            seen.values.append(done["result"].get("value"))
        picture = await call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        seen.screenshot = base64.b64decode(picture["data"])
    return seen
