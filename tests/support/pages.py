"""Pages of the documentation, and their snippets run as a reader would: in the order of the page, in one folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)

_SESSION = """
import json, sys
for line in sys.stdin:
    exec(compile(json.loads(line), "<snippet>", "exec"), globals())
    print("\\0", flush=True)
"""
"""A process that runs one snippet after the other, so that a later one finds the names of an earlier one."""

_VOLATILE = {
    r"(?m)^(  (?:add|update|keep|delete)\s+)[\d,]+": r"\1SIZE",
    r"\b[0-9a-f]{8}\b": "COMMIT",
}
"""What a command prints otherwise each time: sizes of files that hold times, and commits."""


@dataclass(frozen=True)
class Snippet:
    """A fence of a page: its language, what stands behind that, its text, and the paragraph before it."""

    language: str
    marks: str
    code: str
    introduction: str

    @property
    def runs(self) -> bool:
        """Whether the suite runs it."""
        return self.language in {"python", "bash", "console"} and "no-run" not in self.marks


def snippets(text: str) -> list[Snippet]:
    """The fences of a page, in order."""
    starts = [(match, text[: match.start()].rstrip().rpartition("\n\n")[2]) for match in _FENCE.finditer(text)]
    return [Snippet(match[1], match[2].strip(), match[3], introduction) for match, introduction in starts]


def stable(printed: str) -> str:
    """What a command printed, without what is another each time.

    >>> stable("Committed c1dd2de3 to the Hub")
    'Committed COMMIT to the Hub'
    """
    for pattern, name in _VOLATILE.items():
        printed = re.sub(pattern, name, printed)
    return printed


class Reader:
    """Somebody who runs a page's snippets: a shell and a Python of this environment, in a folder with the examples.

    Args:
        folder: An empty folder.
        hub: The Hub that commands and snippets meet, logged in.
        events: What happens between the commands of a console: its line, which begins with ``#`` → what to do.
    """

    def __init__(self, folder: Path, hub: HubServer, events: Mapping[str, Callable[[HubServer], None]]) -> None:
        self.folder, self._hub, self._events = folder, hub, events
        shutil.copytree(ROOT / "examples", folder / "examples")
        # The environment is there already, so what the quickstart sets up first is nothing here.
        (folder / ".ci").mkdir()
        (folder / ".ci" / "setup").touch()
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "IM_VENV": sys.prefix,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONWARNINGS": "ignore",
        }
        self._environment.pop("COLUMNS", None)
        self._python: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        if self._python is not None:
            self._python.communicate()

    def run(self, snippet: Snippet) -> None:
        """Run a snippet; one that fails, or a console that shows something else, is an AssertionError."""
        {"python": self._run_python, "bash": self._run_shell, "console": self._run_console}[snippet.language](
            snippet.code
        )

    def _run_python(self, code: str) -> None:
        log = self.folder / ".python.log"
        if self._python is None:
            with log.open("w", encoding="utf-8") as errors:
                self._python = subprocess.Popen(
                    [sys.executable, "-c", _SESSION],
                    cwd=self.folder,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
        self._python.stdin.write(json.dumps(code) + "\n")
        self._python.stdin.flush()
        ended = any(line == "\0\n" for line in iter(self._python.stdout.readline, ""))
        assert ended, f"{code}\n{log.read_text(encoding='utf-8')}"

    def _run_shell(self, code: str) -> None:
        status, printed = self.shell(code)
        assert not status, f"{code}\n{printed}"

    def _run_console(self, code: str) -> None:
        session = [line for line in code.splitlines() if line.startswith("$ ") or line in self._events]
        assert stable("".join(map(self.answer, session))) == stable(code)

    def answer(self, line: str) -> str:
        """A line of a console with what comes after it."""
        if line in self._events:
            self._events[line](self._hub)
            return f"{line}\n"
        status, printed = self.shell(line.removeprefix("$ "))
        failed = f"(exit status {status})\n" if status else ""
        return f"{line}\n{printed.replace(self._hub.endpoint, '$HF_ENDPOINT')}{failed}"

    def shell(self, code: str) -> tuple[int, str]:
        """Exit status of some commands, and what they print, both streams."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout
