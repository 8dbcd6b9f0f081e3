"""The command line, run in this process: what it printed and its exit status; errors of the package go on."""

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from im_datasets.cli.main import run


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke(*words: object) -> Done:
    """Run ``im-datasets`` with these words."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        status = run([str(word) for word in words])
    return Done(status, out.getvalue(), err.getvalue())
