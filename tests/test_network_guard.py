"""The guard of conftest.py: tests reach this machine and nothing else."""

import os
import socket

import pytest


def test_guard_refuses_an_address_beyond_loopback() -> None:
    with pytest.raises(PermissionError, match=r"a test asked the network for 192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_guard_refuses_to_resolve_a_name() -> None:
    with pytest.raises(PermissionError, match=r"a test asked the network for example\.org"):
        socket.getaddrinfo("example.org", 443)


def test_guard_lets_loopback_through() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_hub_libraries_are_offline_with_a_cache_of_this_run() -> None:
    import datasets
    from huggingface_hub import constants

    assert constants.is_offline_mode()
    assert str(datasets.config.HF_DATASETS_CACHE) == os.environ["HF_DATASETS_CACHE"]
    assert os.environ["HF_HOME"] == constants.HF_HOME
