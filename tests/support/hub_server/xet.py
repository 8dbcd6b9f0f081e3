"""Xet storage in a folder: the client's own library writes and reads it, and the server finds files by their sha256.

`hf_xet` takes ``local://`` for the address of a storage server. Which Xet hash a sha256 has stands in the shards it
writes there.
"""

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

_WORD = 48
"""Bytes of every header and entry of a shard."""

_END = b"\xff" * 32
_HAS_CHECKS, _HAS_SHA256 = 1 << 31, 1 << 30


def read_back(folder: Path, digest: str, size: int) -> tuple[str, bytes]:
    """The Xet hash and the content of an uploaded file; KeyError where it was never uploaded."""
    from hf_xet import XetFileInfo, XetSession

    known: dict[str, str] = {}
    for shard in folder.rglob("xorbs/shards/*.mdb"):
        known |= _hashes(shard.read_bytes())
    xet_hash = known[digest]
    with TemporaryDirectory() as scratch:
        target = Path(scratch) / "content"
        with XetSession().new_file_download_group(
            endpoint=f"local://{folder}", token="t", token_expiry_unix_secs=2**40
        ) as group:
            group.start_download_file(XetFileInfo(xet_hash, size), str(target))
        return xet_hash, target.read_bytes()


def _hashes(shard: bytes) -> dict[str, str]:
    """sha256 → Xet hash of every file that a shard tells of."""
    at, found = _WORD, {}
    while shard[at : at + 32] != _END:
        xet_hash = _hex(shard[at : at + 32])
        flags, entries = struct.unpack("<II", shard[at + 32 : at + 40])
        at += _WORD * (1 + entries + (entries if flags & _HAS_CHECKS else 0))
        if flags & _HAS_SHA256:
            found[_hex(shard[at : at + 32])] = xet_hash
            at += _WORD
    return found


def _hex(raw: bytes) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
