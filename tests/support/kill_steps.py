"""Kills a command at chosen steps of its work, runs it again each time, and tells what it found before and after.

A program, so that nothing but the command runs in the processes that SIGKILL ends:
``python kill_steps.py FOLDER mine --kills 40`` prints one JSON object. A step is whatever changes a disk or asks the
Hub: a file opened to be written, flushed, renamed or removed, a folder made or removed, bytes sent or awaited. Each
attempt is a fork of one process that has imported everything, and is killed *before* its step; before it is flushed, a
file loses half of what was written.
"""

import argparse
import json
import os
import pickle
import random
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from hub_server import HubServer

os.environ |= {
    "HF_ENDPOINT": (HUB := HubServer()).endpoint,
    "HF_HUB_OFFLINE": "0",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "IM_DATASETS_STORE": "off",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
}

import datasets
from huggingface_hub import constants
from indicators_for_tests import RULE, Letters, rows
from jinja2 import Environment
from report_sample import make_record, make_selection

from im_datasets import mine, push_selected
from im_datasets.data.request import SourceRequest
from im_datasets.pipeline import score_files
from im_datasets.report import figures, plot_style
from im_datasets.scoring import score as scoring
from im_datasets.scoring.request import RunRequest, ScoringRequest

REPO = "me/best"
STATED = ("source", "rule", "columns", "rows", "request", "selection")
"""Fields of a record that are the same in every run."""


UNFINISHED = "unfinished"
OLDER: list[bytes] = []
"""Repositories and uploads of the Hub that the older result of a push left."""


class Steps:
    """Counts the steps of this process, and ends it before one of them.

    Args:
        last: Number of the step before which SIGKILL comes; None only counts.
    """

    def __init__(self, last: int | None = None) -> None:
        self.count, self.last = 0, last

    def follow(self) -> None:
        """Count from now on; nothing ends that but the process."""
        sys.addaudithook(self._audit)
        flush, send, receive = os.fsync, socket.socket.sendall, socket.socket.recv

        def fsync(number: int) -> None:
            self.step(lambda: os.ftruncate(number, os.fstat(number).st_size // 2))
            flush(number)

        def sendall(own: socket.socket, *content: Any) -> None:
            self.step()
            send(own, *content)

        def recv(own: socket.socket, *size: int) -> bytes:
            self.step()
            return receive(own, *size)

        os.fsync, socket.socket.sendall, socket.socket.recv = fsync, sendall, recv  # type: ignore[method-assign]

    def step(self, torn: Callable[[], None] = lambda: None) -> None:
        """One more; ``torn`` is how it looks half done."""
        if self.count == self.last:
            torn()
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def _audit(self, event: str, values: tuple[Any, ...]) -> None:
        if event in {"os.rename", "os.mkdir", "os.rmdir", "os.remove"} or (
            event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            self.step()


@dataclass
class Command:
    """What is run, and what is looked at.

    Attributes:
        run: Runs it in a folder, over an older result where told so.
        state: What lies under its name in a folder, as plain data; None where nothing does.
    """

    run: Callable[[Path, bool], object]
    state: Callable[[Path], Any]


def main() -> None:
    """Run it undisturbed, then killed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--kills", type=int, default=40)
    options = parser.parse_args()
    _leave_out_what_takes_long()
    rows(30).to_json(options.folder / "rows.jsonl")
    HUB.start()
    kinds = COMMANDS[options.command]
    for command in kinds.values():
        warm = Attempt(options.folder / "warm", command, older=False)
        keep_in(warm.folder)
        command.run(warm.folder / "out", False)  # in this process, which every attempt is a fork of
    kills = []
    for number, (name, command) in enumerate(kinds.items()):
        for older in (False, True):
            count = len(range(2 * number + older, options.kills, 2 * len(kinds)))
            kills += [{"kind": name, "older": older, **kill} for kill in killed(options.folder, command, older, count)]
    print(json.dumps(kills))


def _leave_out_what_takes_long() -> None:
    """Models, figures and the compiling of templates: none of them writes anything."""
    scoring.with_description = lambda rule, indicators=(): list(indicators)
    plot_style.as_png, plot_style.as_svg = lambda figure: b"figure", lambda figure, *_, **__: "<svg></svg>"
    figures.score_distribution = figures.indicator_panels = figures.correlations = lambda *_, **__: None
    figures.lengths = lambda scores: {}
    compile_template = Environment.compile
    compiled: dict[str, Any] = {}

    def compile_once(own: Environment, source: str, *names: Any) -> Any:
        if source not in compiled:
            compiled[source] = compile_template(own, source, *names)
        return compiled[source]

    Environment.compile = compile_once  # type: ignore[method-assign]


def killed(folder: Path, command: Command, older: bool, count: int) -> list[dict[str, Any]]:
    """What so many kills left, over an older result or without one."""
    plain = Attempt(folder / "plain", command, older)
    before = plain.state()
    steps = plain.run()
    wanted, beside = plain.state(), plain.beside()
    draw = random.Random(f"{count} {older}")
    told = []
    for part in range(count):
        step = int((part + draw.random()) * steps / count)
        attempt = Attempt(folder / "killed", command, older)
        attempt.run(step)
        state = attempt.state()
        seen = (
            "old"
            if state == before
            else "new"
            if state == wanted
            else UNFINISHED
            if state == UNFINISHED
            else f"another: {state}"
        )
        if part % 3 == 2:
            attempt.run(int(draw.random() * steps))  # and once more, while it clears up or goes on
        attempt.run()
        again = attempt.state()
        told.append(
            {
                "step": step,
                "of": steps,
                "seen": seen,
                "again": "new" if again == wanted else f"another: {again}",
                "left": sorted(set(attempt.beside()) ^ set(beside)),
            }
        )
    return told


class Attempt:
    """A folder of its own for one attempt: results, temporary files, caches of the libraries."""

    def __init__(self, folder: Path, command: Command, older: bool) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.command, self.older = folder, command, older
        for name in ("out", "tmp", "cache"):
            (folder / name).mkdir(parents=True)
        HUB.reset()
        os.environ["HF_TOKEN"] = HUB.login()
        if older:
            self._lay_older()

    def run(self, last: int | None = None) -> int:
        """Run the command in a fork, up to a step; the number of steps where it comes to its end."""
        return self._fork(lambda: self.command.run(self.folder / "out", self.older), last)

    def state(self) -> Any:
        return self.command.state(self.folder / "out")

    def beside(self) -> list[str]:
        """Everything in the folders of results and of temporary files."""
        return [
            path.relative_to(self.folder).as_posix()
            for name in ("out", "tmp")
            for path in (self.folder / name).rglob("*")
        ]

    def _lay_older(self) -> None:
        """An older result; made once, then copied."""
        copy = self.folder.parent / "older"
        if self.folder.name == "plain":
            self._fork(lambda: self.command.run(self.folder / "out", False), None)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self.folder, copy)
            OLDER[:] = [pickle.dumps(HUB.store.repos), pickle.dumps(HUB.store.lfs)]
        else:
            shutil.copytree(copy, self.folder, dirs_exist_ok=True)
            HUB.store.repos, HUB.store.lfs = map(pickle.loads, OLDER)

    def _fork(self, work: Callable[[], object], last: int | None) -> int:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                keep_in(self.folder)
                steps = Steps(last)
                steps.follow()
                work()
                if last is not None:  # a run may have a step or two less than another
                    os.kill(os.getpid(), signal.SIGKILL)
                os.write(writer, str(steps.count).encode())
                os._exit(0)
            except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader) as told:
            count = told.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != (0 if last is None else -signal.SIGKILL):
            raise SystemExit(f"an attempt to be ended at step {last} ended with {code}")
        return int(count or 0)


def keep_in(folder: Path) -> None:
    """Have all libraries keep their files in a folder."""
    tempfile.tempdir = str(folder / "tmp")
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    constants.HF_HUB_CACHE = str(folder / "cache")


def files(place: Path) -> Any:
    """Path → content of the files of a result, without what is another in every run."""
    if not place.exists():
        return None
    return {
        path.relative_to(place).as_posix(): digest(path) for path in sorted(place.rglob("*")) if path.is_file()
    } or digest(place)


def digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".html":  # shows the times of the record
        return "whole" if content.rstrip().endswith(b"</html>") else "torn"
    if path.name.endswith("record.json"):
        try:
            record = json.loads(content)
        except ValueError:
            return "torn"
        content = json.dumps([record[name] for name in STATED]).encode()
    return sha256(content).hexdigest()[:12]


def scored_file(out: Path) -> Any:
    """A single file with its record; a record that says it fits no rows, and that no reader takes, is nothing yet."""
    record = out / "scored.record.json"
    if record.is_file() and json.loads(record.read_text())["rows"] == 0:
        return UNFINISHED
    states = [files(out / "scored.parquet"), files(record)]
    return states if any(states) else None


def repository() -> Any:
    """Path → content of the branch; None where nothing was pushed."""
    repo = HUB.store.repos.get(("dataset", REPO))
    if repo is None or len(history := repo.history("main")) < 2:
        return None
    content = {path: sha256(file.content).hexdigest()[:12] for path, file in repo.commit_at("main").files.items()}
    return [len(history), content]


SELECTION = replace(make_selection(), record=make_record())
OTHER = replace(make_selection(keep=5), record=SELECTION.record)


def run_mine(out: Path, over: bool) -> None:
    options: dict[str, Any] = {"rule": RULE, "indicators": [Letters()], "progress": False}
    mine(out.parent.parent / "rows.jsonl", out / "mined", top_k=7 if over else 5, overwrite=over, **options)


def run_score(place: Path, over: bool) -> None:
    rule = replace(RULE, intercept=float(over))
    source = SourceRequest(place.parent.parent.parent / "rows.jsonl")
    run = RunRequest(overwrite=over, progress=False)
    score_files(ScoringRequest(source, rule, [Letters()]), place, run)


def run_push(over: bool) -> None:
    push_selected(OTHER if over else SELECTION, REPO, license="cc0-1.0", language="en", include_dropped=True)


COMMANDS = {
    "mine": {"folder": Command(run_mine, lambda out: files(out / "mined"))},
    "score": {
        "folder": Command(lambda out, over: run_score(out / "scored", over), lambda out: files(out / "scored")),
        "file": Command(lambda out, over: run_score(out / "scored.parquet", over), scored_file),
    },
    "push": {"repository": Command(lambda out, over: run_push(over), lambda out: repository())},
}


if __name__ == "__main__":
    main()
