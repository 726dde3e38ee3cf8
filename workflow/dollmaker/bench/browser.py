"""Headless Chromium, for what only a browser can tell."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dollmaker.runtime.errors import ConfigError

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
)


def missing() -> str:
    """Which of the programs are not installed, in words; empty if all are."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(names)} not found on this machine" if names else ""


def start(profile: Path) -> Chrome:
    """A new browser that talks to no one.

    Args:
        profile: An empty folder for what it keeps.

    Raises:
        ConfigError: If Chromium, its driver or selenium is not installed.
    """
    if reason := missing():
        raise ConfigError(f"{reason}; install Debian's packages chromium and chromium-driver.")
    try:
        from selenium import webdriver
    except ModuleNotFoundError:
        raise ConfigError("selenium is not installed; run pip install selenium.") from None
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
