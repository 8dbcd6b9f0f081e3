"""An engine by its name, as the command line has it."""

from im_datasets.common.errors import EngineError
from im_datasets.scoring.engines.base import ShardEngine
from im_datasets.scoring.engines.local import LocalEngine


def choose_engine(name: str, workers: int | None = None, address: str | None = None) -> ShardEngine:
    """The engine of that name.

    Args:
        name: ``local`` or ``ray``.
        workers: How many score side by side; None is one on this machine, and on Ray what the cluster holds.
        address: Of the Ray cluster.

    Raises:
        EngineError: There is no such engine, or it takes no address.
        MissingExtraError: Ray is asked for and not installed.
    """
    if name == "ray":
        from im_datasets.scoring.engines.ray import RayEngine

        return RayEngine(workers, address)
    if name != "local":
        raise EngineError(f"no engine {name!r}; pass local or ray")
    if address is not None:
        raise EngineError(f"the local engine takes no address ({address}); pass --engine ray too")
    return LocalEngine(workers or 1)
