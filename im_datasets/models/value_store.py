"""Values that were computed before, on disk: nothing is scored twice.

One SQLite file that several processes may share: key (a digest of an input and of all settings its value depends
on) → the value's bytes. Bounded in size: what was not used for longest goes first. A store that cannot be read or
written costs time, never a run. Keep the file on a local disk: SQLite's locks are not made for network file systems.
"""

import os
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path

from im_datasets.common.storage import cache_folder

VARIABLE = "IM_DATASETS_STORE"
"""Environment variable: ``off`` keeps nothing."""

MAX_BYTES = 4 * 2**30
"""Size beyond which the store forgets."""

_DAY = 86_400
# SQLite before 3.32 takes at most 999 question marks.
_PER_QUERY = 500
_TABLE = (
    "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL, day INTEGER NOT NULL) WITHOUT ROWID"
)


class Store:
    """Key → value, both bytes, in one file.

    Args:
        path: The SQLite file; it and its folder are made when first written.
        max_bytes: Size of the file beyond which the entries unused for longest are dropped.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     store = Store(Path(folder) / "scores.sqlite")
        ...     store.put({b"key": b"value"})
        ...     store.get([b"key", b"other"])
        {b'key': b'value'}
    """

    def __init__(self, path: str | Path, max_bytes: int = MAX_BYTES) -> None:
        self.path, self.max_bytes = Path(path), max_bytes

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values that are there, by their keys."""
        if not self.path.exists():
            return {}
        try:
            with closing(self._connect()) as connection, connection:
                return self._get(connection, list(keys))
        except (sqlite3.Error, OSError) as error:
            self._complain(error)
            return {}

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep some values; all of them or, when something goes wrong, none."""
        if not entries:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection:
                with connection:
                    rows = ((key, value, _today()) for key, value in entries.items())
                    connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
                self._bound(connection)
        except (sqlite3.Error, OSError) as error:
            self._complain(error)

    def _connect(self) -> sqlite3.Connection:
        """A connection of its own for every use: none may cross a fork or a thread."""
        connection = sqlite3.connect(self.path, timeout=60)
        # Counts only before the first table is made.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # With a write-ahead log readers need not wait for a writer, and a power cut costs the last values at most.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_TABLE)
        return connection

    def _get(self, connection: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, bytes]:
        values: dict[bytes, bytes] = {}
        stale: list[bytes] = []
        for start in range(0, len(keys), _PER_QUERY):
            some = keys[start : start + _PER_QUERY]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value, day FROM entries WHERE key IN ({marks})"  # noqa: S608 - question marks only
            for key, value, day in connection.execute(query, some):
                values[key] = value
                # So that reading writes no entry more than once a day.
                if day < _today():
                    stale.append(key)
        connection.executemany("UPDATE entries SET day = ? WHERE key = ?", [(_today(), key) for key in stale])
        return values

    def _bound(self, connection: sqlite3.Connection) -> None:
        """Forget the least recently used fifth, again and again, while the store is too large."""
        while self._bytes(connection) > self.max_bytes:
            with connection:
                (entries,) = connection.execute("SELECT COUNT(*) FROM entries").fetchone()
                oldest = "SELECT key FROM entries ORDER BY day LIMIT ?"
                connection.execute(f"DELETE FROM entries WHERE key IN ({oldest})", [entries // 5 + 1])  # noqa: S608
            # As a script, which goes on to the end: `execute` stops at the pragma's first step, of one page.
            connection.executescript("PRAGMA incremental_vacuum")
            if not entries:
                return

    @staticmethod
    def _bytes(connection: sqlite3.Connection) -> int:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _complain(self, error: Exception) -> None:
        message = f"the score store {self.path.name} cannot be used ({error}); going on without it"
        warnings.warn(f"{message}; set IM_DATASETS_CACHE to another folder, or {VARIABLE}=off", stacklevel=3)


_UNSET = Path()
_CHOSEN: ContextVar[Path | None] = ContextVar("im_datasets_store", default=_UNSET)


@contextmanager
def using_store(folder: str | Path | None) -> Iterator[None]:
    """Keep computed values in another folder inside the block, or nowhere with None."""
    token = _CHOSEN.set(None if folder is None else Path(folder))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def current_store() -> Store | None:
    """The store that counts here; None where it is off.

    That of ``using_store``; else the file ``scores.sqlite`` in ``cache_folder()``, unless the environment variable
    ``IM_DATASETS_STORE`` is ``off``.
    """
    folder = _CHOSEN.get()
    if folder is _UNSET:
        # Asked of the module each time: `Dataset.map(num_proc=2)` leaves a copy of the environment in its place.
        folder = None if os.environ.get(VARIABLE, "").lower() in {"off", "0", "false"} else cache_folder()
    return None if folder is None else Store(folder / "scores.sqlite")


def _today() -> int:
    return int(time.time()) // _DAY
