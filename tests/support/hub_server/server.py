"""The protocol: what `huggingface_hub` 2.4 and `datasets` 5.2 send and expect, over one ``Store``."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from hub_server.faults import Fault
from hub_server.store import READ, WRITE, File, Refused, Repo, Store, User, card_problem, ndjson, upload_mode

LONG_AGO = "2026-01-02T03:04:05.000Z"
KINDS = {"datasets": "dataset", "spaces": "space", "models": "model"}
Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class Request:
    """A request as the server met it."""

    method: str
    path: str
    token: str | None
    body: bytes


class HubServer:
    """A Hub on a free port of this machine.

    Attributes:
        store: Its repositories and users.
        faults: What befalls requests, first match first.
        requests: All requests so far.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread: Thread | None = None

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def endpoint(self) -> str:
        """The address, for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage(self) -> str:
        """The address of uploads and downloads: another origin, as on the Hub, since clients tell them apart."""
        return f"http://localhost:{self.port}"

    def start(self) -> Self:
        """Answer from now on; a second call changes nothing."""
        if self._thread:
            return self
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._thread:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def reset(self) -> None:
        """Forget everything."""
        self.store, self.faults[:], self.requests[:] = Store(), [], []

    def login(self, name: str = "me", role: str = WRITE) -> str:
        """A token of a user."""
        token = f"hf_{role.replace('-', '')}{name}Token0123456789abcdefghij"
        self.store.users[token] = User(name, role)
        return token

    def fail(self, method: str, path: str, **how: Any) -> Fault:
        """Make the next requests of a kind fail; see ``Fault``."""
        self.faults.append(Fault(method, path, **how))
        return self.faults[-1]

    def calls(self, method: str, path: str = "") -> list[Request]:
        """The requests of a kind so far; the path is a regular expression."""
        return [r for r in self.requests if r.method == method and re.search(path, r.path)]


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self, method: str) -> None:
        body = self._body()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(method, self.path, token, body))
        fault = next((f for f in self.hub.faults if f.befalls(method, self.path)), None)
        if fault:
            sleep(fault.delay)
            if fault.before:
                fault.before()
            if fault.done:
                self._answer(method, token, body)
            if fault.drop:
                self.close_connection = True
                self.connection.close()
                return
            if fault.status:
                self._send(method, _refusal(fault.status, None, fault.message, None, fault.headers))
                return
        self._send(method, self._answer(method, token, body))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self._line(), 16):
                parts.append(self._read(size))
                self._line()
            self._line()
            return b"".join(parts)
        return self._read(int(self.headers.get("Content-Length") or 0))

    def _line(self) -> bytes:
        if not (line := self.rfile.readline()):
            raise ConnectionError("the client went away")
        return line.strip()

    def _read(self, size: int) -> bytes:
        """So many bytes; a request that its client did not finish is none."""
        if len(content := self.rfile.read(size)) < size:
            raise ConnectionError("the client went away")
        return content

    def _answer(self, method: str, token: str | None, body: bytes) -> Answer:
        try:
            return _Session(self.hub, token, self.headers, body).answer(method, self.path)
        except Refused as refused:
            return _refusal(refused.status, refused.code, refused.message, refused.body)

    def _send(self, method: str, answer: Answer) -> None:
        status, headers, body = answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if method != "HEAD":
            self.wfile.write(body)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()


def _refusal(status: int, code: str | None, message: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
    told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
    return _json(body or {"error": message}, status, told)


@dataclass
class _Session:
    """One request, with the user behind it."""

    hub: HubServer
    token: str | None
    headers: Any
    body: bytes

    def answer(self, method: str, url: str) -> Answer:
        parts = urlsplit(url)
        path, query = parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}
        for verb, pattern, act in _ROUTES:
            if method in verb.split() and (match := re.fullmatch(pattern, path)):
                names = {name: unquote(value or "") for name, value in match.groupdict().items()}
                answer: Answer = act(self, query=query, **names)
                return answer
        return _refusal(404, None, f"the loopback Hub knows no {method} {path}", None)

    @property
    def user(self) -> User | None:
        if self.token is None:
            return None
        if self.token not in self.hub.store.users:
            raise Refused(401, None, "Invalid credentials in Authorization header")
        return self.hub.store.users[self.token]

    def writer(self) -> User:
        user = self.user
        if user is None:
            raise Refused(401, None, "Unauthorized")
        return user

    def repo(self, kind: str, name: str) -> Repo:
        return self.hub.store.repo(KINDS.get(kind, "model"), name, self.user)

    def data(self) -> Any:
        return json.loads(self.body or b"{}")

    # Users and repositories

    def whoami(self, query: dict[str, str]) -> Answer:
        user = self.writer()
        role = {"displayName": "test", "role": user.role}
        return _json({"type": "user", "name": user.name, "orgs": [], "auth": {"accessToken": role}})

    def create_repo(self, query: dict[str, str]) -> Answer:
        user, wish = self.writer(), self.data()
        owner = wish.get("organization") or user.name
        if user.role != WRITE or owner != user.name:
            raise Refused(403, None, f'You don\'t have the rights to create a dataset under the namespace "{owner}".')
        kind = wish.get("type") or "model"
        private = wish.get("visibility") == "private" or bool(wish.get("private"))
        name = f"{owner}/{wish['name']}"
        self.hub.store.create(kind, name, private=private)
        return _json({"url": f"{self.hub.endpoint}/{kind}s/{name}", "name": name, "id": name})

    def info(self, query: dict[str, str], kind: str, name: str, revision: str = "main") -> Answer:
        repo = self.repo(kind, name)
        commit = repo.commit_at(revision or "main")
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in commit.files]
        if query.get("blobs"):
            siblings = [{"rfilename": path, "size": len(file.content)} for path, file in commit.files.items()]
        return _json(
            {
                "id": repo.name,
                "sha": commit.sha,
                "private": repo.private,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "lastModified": LONG_AGO,
                "createdAt": LONG_AGO,
                "siblings": siblings,
            }
        )

    def refs(self, query: dict[str, str], kind: str, name: str) -> Answer:
        heads = {n: s for n, s in self.repo(kind, name).refs.items() if not n.startswith("refs/")}
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": sha} for n, sha in heads.items()]
        return _json({"branches": branches, "tags": [], "converts": [], "pullRequests": []})

    def create_branch(self, query: dict[str, str], kind: str, name: str, revision: str) -> Answer:
        user, repo = self.writer(), self.repo(kind, name)
        if user.role != WRITE:
            raise Refused(403, None, "You don't have the rights to write to this repo.")
        if revision in repo.refs:
            raise Refused(409, None, "Reference already exists")
        repo.refs[revision] = repo.commit_at(self.data().get("startingPoint") or "main").sha
        return _json({})

    def discussions(self, query: dict[str, str], kind: str, name: str) -> Answer:
        repo = self.repo(kind, name)
        found = [p for p in repo.pull_requests if query.get("status", p.status) == p.status]
        told = [
            {
                "title": p.title,
                "num": p.num,
                "author": {"name": p.author},
                "createdAt": LONG_AGO,
                "status": p.status,
                "repo": {"name": name, "type": "dataset"},
                "isPullRequest": True,
            }
            for p in reversed(found)
        ]
        return _json({"discussions": told, "count": len(told), "start": 0})

    # Files

    def tree(self, query: dict[str, str], kind: str, name: str, revision: str, folder: str = "") -> Answer:
        commit = self.repo(kind, name).commit_at(revision)
        deep = query.get("recursive", "").lower() in {"true", "1"}
        inside = folder.strip("/") + "/" if folder.strip("/") else ""
        found: dict[str, Any] = {}
        for path, file in commit.files.items():
            if not path.startswith(inside):
                continue
            steps = path.removeprefix(inside).split("/")
            for depth in range(1, len(steps)):
                above = inside + "/".join(steps[:depth])
                if deep or depth == 1:
                    found.setdefault(above, {"type": "directory", "oid": "0" * 40, "size": 0, "path": above})
            if deep or len(steps) == 1:
                found[path] = _entry(path, file)
        if inside and not found:
            raise Refused(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        return _json(list(found.values()))

    def commits(self, query: dict[str, str], kind: str, name: str, revision: str) -> Answer:
        known = {"message": "", "date": "2026-01-01T00:00:00.000Z"}
        history = self.repo(kind, name).history(revision)
        return _json([{"id": c.sha, "title": c.title, "authors": [{"user": c.author}], **known} for c in history])

    def paths_info(self, query: dict[str, str], kind: str, name: str, revision: str) -> Answer:
        commit = self.repo(kind, name).commit_at(revision)
        wish = self.data() if self.body.startswith(b"{") else parse_qs(self.body.decode())
        asked = wish.get("paths", [])
        found = [_entry(path, commit.files[path]) for path in asked if path in commit.files]
        folders = [path for path in asked if any(name.startswith(path + "/") for name in commit.files)]
        return _json(found + [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders])

    def resolve(self, query: dict[str, str], kind: str, name: str, revision: str, path: str) -> Answer:
        commit = self.repo(kind, name).commit_at(revision)
        if path not in commit.files:
            raise Refused(404, "EntryNotFound", f"{path} does not exist on {revision}")
        file = commit.files[path]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.known_oid}"', "Accept-Ranges": "bytes"}
        if not file.lfs:
            return self._ranged(file.content, headers)
        linked = {"X-Linked-Size": str(len(file.content)), "X-Linked-ETag": f'"{file.sha256}"'}
        if file.sha256 in self.hub.store.xet:
            linked["X-Xet-Hash"] = self.hub.store.xet[file.sha256]
            linked["X-Xet-Refresh-Route"] = f"{self.hub.endpoint}/api/{kind}/{name}/xet-read-token/{commit.sha}"
        location = f"{self.hub.storage}/storage/{file.sha256}"
        self.hub.store.lfs.setdefault(file.sha256, file.content)
        return 302, {**headers, **linked, "Location": location}, b""

    def download(self, query: dict[str, str], oid: str) -> Answer:
        return self._ranged(self.hub.store.lfs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _ranged(self, content: bytes, headers: dict[str, str]) -> Answer:
        wish = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wish:
            return 200, headers, content
        start, end = int(wish[1]), min(int(wish[2] or len(content) - 1), len(content) - 1)
        told = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        return 206, {**headers, **told}, content[start : end + 1]

    # Uploads and commits

    def validate_yaml(self, query: dict[str, str]) -> Answer:
        problem = card_problem(self.data()["content"])
        return _json({"errors": [{"message": problem}] if problem else [], "warnings": []}, 400 if problem else 200)

    def preupload(self, query: dict[str, str], kind: str, name: str, revision: str) -> Answer:
        user = self.writer()
        repo = self.repo(kind, name)
        if user.role == READ:
            raise Refused(403, None, "You don't have the rights to write to this repo.")
        files, told = repo.commit_at(revision).files, []
        for wish in self.data()["files"]:
            path, mode = wish["path"], upload_mode(wish["path"], wish["size"])
            known = files[path].known_oid if path in files and files[path].lfs == (mode == "lfs") else None
            told.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        return _json({"files": told})

    def lfs_batch(self, query: dict[str, str], kind: str, name: str) -> Answer:
        self.writer()
        objects = []
        for wish in self.data()["objects"]:
            known = wish["oid"] in self.hub.store.lfs
            upload = {"upload": {"href": f"{self.hub.storage}/storage/{wish['oid']}", "header": {}}}
            objects.append({**wish, **({} if known else {"actions": upload})})
        return _json({"transfer": "basic", "objects": objects})

    def xet_token(self, query: dict[str, str], kind: str, name: str, way: str, revision: str) -> Answer:
        if way == "write":
            self.writer()
        folder = self.hub.store.xet_folder
        if folder is None:
            raise Refused(404, None, "no Xet storage here")
        told = {"casUrl": f"local://{folder}", "accessToken": "xet-token", "exp": 2**40}
        headers = {
            "X-Xet-Cas-Url": f"local://{folder}",
            "X-Xet-Access-Token": "xet-token",
            "X-Xet-Token-Expiration": str(2**40),
        }
        return _json(told, headers=headers)

    def upload(self, query: dict[str, str], oid: str) -> Answer:
        self.hub.store.lfs[oid] = self.body
        return _json({})

    def commit(self, query: dict[str, str], kind: str, name: str, revision: str) -> Answer:
        user, repo = self.writer(), self.repo(kind, name)
        done = self.hub.store.commit(
            repo, revision, user, ndjson(self.body), create_pr=query.get("create_pr") in {"1", "true"}
        )
        return _json({n: v if n == "commitOid" else self.hub.endpoint + v for n, v in done.items()})

    # Collections

    def create_collection(self, query: dict[str, str]) -> Answer:
        wish = self.data()
        slug = f"{wish['namespace']}/{wish['title'].lower().replace(' ', '-')}-{len(self.hub.store.collections):024x}"
        self.hub.store.collections[slug] = {
            "slug": slug,
            "title": wish["title"],
            "owner": {"name": wish["namespace"]},
            "items": [],
            "lastUpdated": LONG_AGO,
            "position": 0,
            "private": False,
            "theme": "blue",
            "upvotes": 0,
        }
        return _json(self.hub.store.collections[slug])

    def _collection(self, slug: str) -> dict[str, Any]:
        if slug not in self.hub.store.collections:
            raise Refused(404, None, "Collection not found")
        return self.hub.store.collections[slug]

    def collection(self, query: dict[str, str], slug: str) -> Answer:
        return _json(self._collection(slug))

    def add_to_collection(self, query: dict[str, str], slug: str) -> Answer:
        self.writer()
        collection, item = self._collection(slug), self.data()["item"]
        if any(known["id"] == item["id"] for known in collection["items"]):
            raise Refused(409, None, "Item already in collection")
        place = len(collection["items"])
        collection["items"].append({"_id": f"{place:024x}", "position": place, **item})
        return _json(collection)


def _entry(path: str, file: File) -> dict[str, Any]:
    size = len(file.content)
    entry = {"type": "file", "path": path, "size": size, "oid": file.git_oid}
    return {**entry, "lfs": {"oid": file.sha256, "size": size, "pointerSize": 130}} if file.lfs else entry


_API = r"/api/(?P<kind>datasets|spaces|models)/(?P<name>[^/]+/[^/]+)"
_PLAIN = r"(?:/(?P<kind>datasets|spaces))?/(?P<name>[^/]+/[^/]+?)"
_REV = r"(?P<revision>[^/]+)"
_SLUG = r"/api/collections/(?P<slug>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", r"/api/whoami-v2", _Session.whoami),
    ("POST", r"/api/repos/create", _Session.create_repo),
    ("POST", r"/api/validate-yaml", _Session.validate_yaml),
    ("GET", _API, _Session.info),
    ("GET", _API + "/revision/" + _REV, _Session.info),
    ("GET", _API + "/refs", _Session.refs),
    ("POST", _API + "/branch/" + _REV, _Session.create_branch),
    ("GET", _API + "/discussions", _Session.discussions),
    ("GET", _API + "/tree/" + _REV + "(?:/(?P<folder>.*))?", _Session.tree),
    ("GET", _API + "/commits/" + _REV, _Session.commits),
    ("POST", _API + "/paths-info/" + _REV, _Session.paths_info),
    ("POST", _API + "/preupload/" + _REV, _Session.preupload),
    ("POST", _API + "/commit/" + _REV, _Session.commit),
    ("GET", _API + "/xet-(?P<way>read|write)-token/" + _REV, _Session.xet_token),
    ("POST", _PLAIN + r"\.git/info/lfs/objects/batch", _Session.lfs_batch),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", _Session.upload),
    ("GET HEAD", r"/storage/(?P<oid>[0-9a-f]{64})", _Session.download),
    ("GET HEAD", _PLAIN + "/resolve/" + _REV + "/(?P<path>.+)", _Session.resolve),
    ("POST", r"/api/collections", _Session.create_collection),
    ("GET", _SLUG, _Session.collection),
    ("POST", _SLUG + "/items", _Session.add_to_collection),
]
