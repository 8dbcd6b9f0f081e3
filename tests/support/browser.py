"""Chromium without a window, and a page of it that notes all that it runs, says and asks for."""

import shutil
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-pings",
]


def opened(browser: Any, path: Path, **settings: Any) -> Any:
    """A page with a file in it; ``problems`` and ``requests_made`` tell what happened."""
    page = browser.new_page(**settings)
    page.problems, page.requests_made = [], []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: page.problems.append("dialog"))
    page.on("popup", lambda popup: page.problems.append("popup"))
    page.on("request", lambda request: page.requests_made.append(request.url))
    page.goto(path.as_uri())
    return page
