"""What is asked of a gallery in a browser."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.keys import Keys


class Page:
    """A gallery that is open in a browser."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver = driver
        self.address = (folder / "index.html").as_uri()

    def open(self, fragment: str = "", *, width: int = 1200, height: int = 900) -> None:
        """Load it anew in a window of this size."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get("about:blank")
        self.driver.get(self.address + fragment)
        self.settle()

    def settle(self) -> None:
        """Wait until every tile near the window has its picture and mask."""
        self.until(
            "const imgs = [...document.querySelectorAll('img')].filter(i => !i.hidden);"
            "return document.readyState === 'complete' && imgs.every(i => i.complete)"
        )
        self.js("return new Promise(d => requestAnimationFrame(() => requestAnimationFrame(d)))")

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, seconds: float = 10) -> Any:
        """Wait until a script returns something true, and give that."""
        return self.wait(lambda: self.js(script), seconds, script)

    def wait(self, what: Callable[[], Any], seconds: float = 10, words: str = "it") -> Any:
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, f"never: {words}"
            time.sleep(0.02)
        return found

    def click(self, selector: str) -> None:
        self.js("document.querySelector(arguments[0]).click()", selector)

    def set(self, selector: str, value: str) -> None:
        """Give a control a value as a user does."""
        self.js(
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
            "for (const t of ['input', 'change']) e.dispatchEvent(new Event(t, {bubbles: true}))",
            selector,
            value,
        )

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(getattr(Keys, key, key))

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def tiles(self) -> list[dict[str, str]]:
        """What the tiles say, in order."""
        return list(
            self.js(
                "return [...document.querySelectorAll('.cell')].sort((a, b) =>"
                " a.ariaPosInSet - b.ariaPosInSet).map(c => ({finding:"
                " c.querySelector('b').textContent, quality:"
                " c.querySelector('.quality').textContent, id: c.querySelector('.id').textContent,"
                " area: c.querySelector('.caption .number').textContent}))"
            )
        )

    def ink(self, selector: str = ".tile canvas") -> int:
        """Sum of the opacity of a canvas's pixels."""
        return int(
            self.js(
                "const c = document.querySelector(arguments[0]);"
                "const pen = new OffscreenCanvas(c.width, c.height)"
                ".getContext('2d', {willReadFrequently: true}); pen.drawImage(c, 0, 0);"
                "const d = pen.getImageData(0, 0, c.width, c.height).data;"
                "let sum = 0; for (let k = 3; k < d.length; k += 4) sum += d[k]; return sum",
                selector,
            )
        )

    def errors(self) -> list[str]:
        """What the console has complained about since the last question."""
        log = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] != "INFO"]
