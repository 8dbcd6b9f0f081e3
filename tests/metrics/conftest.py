"""Small seeded models in place of the published ones, for the modules that need a model."""

import evaluate
import pytest
from module_samples import SAMPLES


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Kind → folder of a model that stands in for the published one."""
    from tiny_models import save_causal
    from tiny_reward import save_pythia
    from tiny_unieval import save_unieval

    savers = {"causal": save_causal, "reward": save_pythia, "unieval": save_unieval}
    return {kind: str(save(tmp_path_factory.mktemp(kind))) for kind, save in savers.items()}


@pytest.fixture(scope="session")
def samples(models):
    """What every module is tested with, the stand-in models among the settings."""
    return {name: sample.on(models) for name, sample in SAMPLES.items()}


@pytest.fixture
def stand_ins(models, monkeypatch):
    """Makes evaluate.load give a module its stand-in, whichever model is asked for."""
    load = evaluate.load

    def load_with_stand_in(path, *args, **options):
        model = SAMPLES[path.rpartition("/")[2]].model
        return load(path, *args, **{**options, **({"model": models[model]} if model else {})})

    monkeypatch.setattr(evaluate, "load", load_with_stand_in)
