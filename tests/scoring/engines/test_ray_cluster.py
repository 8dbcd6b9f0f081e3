"""Ray's cluster: started on loopback alone, or the one that an address names, or one clear error."""

import socket
from types import SimpleNamespace

import pytest
from indicators_for_tests import RULE, Letters, rows

from im_datasets import score
from im_datasets.common.errors import EngineError
from im_datasets.scoring.engines.ray import RayEngine
from im_datasets.scoring.engines.ray_cluster import fitting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    # Ray warns of its own settings when it makes them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


def run(engine):
    return score(rows(20), RULE, indicators=[Letters()], describe=False, progress=False, engine=engine)


def test_actors_are_counted_by_node():
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}, {"Alive": True, "Resources": {"CPU": 3.0}}]
    dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    assert fitting([*nodes, dead], cpus=2, gpus=0) == 4 + 1
    assert fitting([*nodes, dead], cpus=2, gpus=1) == 2
    assert fitting([*nodes, dead], cpus=5, gpus=1) == 1


def test_client_addresses_are_refused():
    with pytest.raises(EngineError, match=r"ray://head:10001 is Ray's client; run this on a node of the cluster"):
        RayEngine(address="ray://head:10001")


def test_client_address_in_the_environment_is_refused(unconnected, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(EngineError, match=r"ray://head:10001 is Ray's client; run this on a node of the cluster"):
        run(RayEngine())
    assert unconnected.calls == []


@pytest.fixture
def unconnected(monkeypatch):
    """Ray, as if it were connected to nothing and could not be; keeps how that was tried."""
    import ray
    from ray._private import ray_constants

    told = SimpleNamespace(calls=[], error=ConnectionError)

    def init(where, **options):
        told.calls.append((where, options.get("_node_ip_address"), ray_constants.ENABLE_RAY_CLUSTER))
        raise told.error("nobody\nanswers")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    return told


def test_cluster_that_is_not_there_is_one_clear_error(unconnected):
    from ray.exceptions import RayError

    for unconnected.error in (ConnectionError, RayError):
        with pytest.raises(EngineError, match=r"no Ray cluster at auto \(nobody answers\); start one"):
            run(RayEngine(address="auto"))


def test_address_that_nobody_answers_is_not_waited_for(unconnected):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(EngineError, match=rf"no Ray cluster at 127.0.0.1:{port} \(.*refused\); start one"):
        run(RayEngine(address=f"127.0.0.1:{port}"))
    assert unconnected.calls == []


def test_own_cluster_listens_on_loopback_alone(unconnected):
    from ray._private import ray_constants

    with pytest.raises(EngineError, match="no Ray cluster at local"):
        run(RayEngine())
    assert unconnected.calls == [("local", "127.0.0.1", False)]
    assert ray_constants.ENABLE_RAY_CLUSTER
