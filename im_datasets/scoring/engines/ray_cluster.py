"""From an address to a connected Ray cluster, or one started on this machine; and what its nodes can hold."""

import logging
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from im_datasets.common.errors import EngineError, MissingExtraError, message_of

ANSWERED_WITHIN = 10
"""Seconds that the head of a cluster has to take a connection: Ray itself would ask for a quarter of an hour."""


def import_ray() -> Any:
    """Ray with Ray Data.

    Raises:
        MissingExtraError: It is not installed.
    """
    # Ray counts its users unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data
    except ImportError as error:
        raise MissingExtraError("the Ray engine needs Ray; pip install 'im-datasets[ray]'") from error
    return ray


@contextmanager
def on_loopback() -> Iterator[None]:
    """Have a cluster that is started inside the block listen on loopback alone.

    Ray takes 127.0.0.1 for the address that other machines reach this one by, unless it is told that there are none.
    """
    from ray._private import ray_constants

    variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, setting = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(variable)
    # This process has read the variable by now; the cluster's own processes will.
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[variable] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(variable)
        if setting is not None:
            os.environ[variable] = setting


@contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Be connected to a cluster; says whether it was started for this run."""
    ray = import_ray()
    if ray.is_initialized():
        _check_connected(address)
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    refuse_client(address)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address == "local":
            with on_loopback():
                ray.init(address, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        else:
            if head := _host_and_port(address):
                socket.create_connection(head, timeout=ANSWERED_WITHIN).close()
            ray.init(address, **quiet)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise EngineError(
            f"no Ray cluster at {address} ({message_of(error, 300)}); start one (ray start --head) and "
            "pass its address, or leave --address out for one on this machine"
        ) from error
    try:
        yield address == "local"
    finally:
        ray.shutdown()


def refuse_client(address: str) -> None:
    """Refuse an address of Ray's client, through which a driver on no node of the cluster would reach it."""
    if address.startswith("ray://"):
        raise EngineError(
            f"{address} is Ray's client; run this on a node of the cluster, as ray job submit does, and pass the "
            "cluster's own address or auto"
        )


def _check_connected(address: str | None) -> None:
    """Refuse an address that is not the one this process is connected to."""
    own: str = import_ray().get_runtime_context().gcs_address
    if address is None or address in {"auto", own} or _resolved(address) == _resolved(own):
        return
    raise EngineError(
        f"this process is connected to the Ray cluster at {own}, not {address}; pass that or no address, or call "
        "ray.shutdown() first"
    )


def _resolved(address: str) -> tuple[str, int] | str:
    """IP address and port, this machine's as Ray has it; the address itself where it has none."""
    head = _host_and_port(address)
    if head is None:
        return address
    try:
        ip = socket.gethostbyname(head[0])
    except OSError:
        return address
    return (import_ray().util.get_node_ip_address() if ip.startswith("127.") else ip), head[1]


def _host_and_port(address: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", address)
    return (match[1], int(match[2])) if match else None


def fitting(nodes: Sequence[Mapping[str, Any]], cpus: int, gpus: int) -> int:
    """How many actors the living nodes can hold, each whole on one node.

    Args:
        nodes: As ``ray.nodes()`` tells of them.
        cpus: Cores of an actor.
        gpus: GPUs of an actor.

    Example:
        >>> small, large = ({"Alive": True, "Resources": {"CPU": cores}} for cores in (3.0, 4.0))
        >>> fitting([small, large], cpus=2, gpus=0), fitting([small, large], cpus=5, gpus=0)
        (3, 0)
    """
    live = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(int(min(has.get("CPU", 0) // cpus, has.get("GPU", 0) // gpus if gpus else math.inf)) for has in live)
