"""A headless Chromium, driven by its DevTools protocol: what a page does in a real browser."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import websocket

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


class Browser:
    """One headless browser with its own profile; `page` opens a tab."""

    def __init__(self, profile: Path):
        if not CHROMIUM:
            pytest.skip("no Chromium on the path: reports are not opened in a browser (apt install chromium)")
        options = (
            "--headless=new",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-extensions",
            "--hide-scrollbars",
        )
        options += ("--no-sandbox",) if os.geteuid() == 0 else ()
        self._process = subprocess.Popen(
            [
                CHROMIUM,
                *options,
                "--remote-debugging-port=0",
                "--remote-allow-origins=*",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.port, place, end = 0, profile / "DevToolsActivePort", time.monotonic() + 60
        while not self.port:
            if time.monotonic() > end or self._process.poll() is not None:
                pytest.skip("Chromium does not start here: reports are not opened in a browser")
            lines = place.read_text().split() if place.is_file() else []
            self.port = int(lines[0]) if lines else 0
            time.sleep(0.1)

    def page(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """A tab with the page, loaded."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Page(json.load(answer)["webSocketDebuggerUrl"], url, width, height, dark)

    def close(self) -> None:
        """End it, and the processes that it started."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)


class Page:
    """A tab: what it logged, what it asked for, and how it is used."""

    def __init__(self, address: str, url: str, width: int, height: int, dark: bool):
        self._socket = websocket.create_connection(address, timeout=60)
        self._number = itertools.count(1)
        self.errors: list[str] = []
        """What the console holds of warnings and errors."""
        self.asked: list[str] = []
        """Addresses that were fetched."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=url)
        while self.run("document.readyState") != "complete" or self.run("location.href") == "about:blank":
            time.sleep(0.05)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command's result."""
        number = next(self._number)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
            self._hear(said)

    def _hear(self, said: dict[str, Any]) -> None:
        match said.get("method"), said.get("params", {}):
            case "Runtime.exceptionThrown", what:
                self.errors.append(str(what["exceptionDetails"])[:400])
            case "Runtime.consoleAPICalled", what if what["type"] in ("error", "warning", "assert"):
                self.errors.append(str(what["args"])[:400])
            case "Log.entryAdded", what if what["entry"]["level"] in ("error", "warning"):
                self.errors.append(what["entry"]["text"])
            case "Network.requestWillBeSent", what:
                self.asked.append(what["request"]["url"])

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Until an expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"{condition} did not come true"
            time.sleep(0.05)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """A mouse event in the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def key(self, key: str, code: str = "", number: int = 0, text: str = "") -> None:
        """One key, pressed and let go."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=code or key,
                windowsVirtualKeyCode=number,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot, of the whole page."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def close(self) -> None:
        """Leave the tab."""
        self._socket.close()
