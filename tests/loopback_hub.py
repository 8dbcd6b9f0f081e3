"""A read-only Hub on this machine: one dataset repository, spoken to by the real client over HTTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    """Answers for the repository ``owner/name`` at ``main`` and ``SHA``; ``owner/gated`` refuses."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._json([_entry(path, content) for path, content in self.files.items()])

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/api").removeprefix("/datasets/")
        repository, rest = "/".join(path.split("/")[:2]), path.split("/")[2:]
        if repository == "owner/gated":
            self._refuse(401, "GatedRepo", "Access to dataset owner/gated is restricted.")
        elif repository != "owner/name":
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif rest[1:2] and rest[1] not in ("main", SHA):
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
        elif rest[:1] == ["resolve"]:
            self._file("/".join(rest[2:]), with_body=with_body)
        elif rest[:1] == ["tree"]:
            folder = "/".join(rest[2:])
            self._json([_entry(name, data) for name, data in self.files.items() if name.startswith(folder)])
        else:
            names = [{"rfilename": name} for name in self.files]
            self._json({"id": repository, "sha": SHA, "siblings": names, "tags": [], "private": False})

    def _file(self, name: str, *, with_body: bool) -> None:
        if name not in self.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        content = self.files[name]
        wanted = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        start, end = int(wanted[0] or 0), int(wanted[2] or len(content) - 1)
        body = content[start : end + 1]
        headers = {"X-Repo-Commit": SHA, "ETag": f'"{sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if wanted[1]:
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        self._send(206 if wanted[1] else 200, body, headers, with_body=with_body)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, with_body=True)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message}, with_body=False)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": sha1(content).hexdigest()}


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[str]:
    """Serve these files as ``owner/name``.

    Yields:
        The address, for ``HF_ENDPOINT``.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (_Hub,), {"files": files}))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
