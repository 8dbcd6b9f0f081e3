"""A Hub on this machine, for the real `huggingface_hub` and `datasets` over HTTP.

``store`` holds repositories as git would: blobs, commits, branches, pull requests. ``server`` speaks the protocol.
``faults`` makes it fail on demand.
"""

from hub_server.faults import Fault
from hub_server.server import HubServer, Request
from hub_server.store import READ, WRITE, PullRequestOnly, Refused, Store, User, serve

__all__ = ["READ", "WRITE", "Fault", "HubServer", "PullRequestOnly", "Refused", "Request", "Store", "User", "serve"]
