"""How many workers of how many threads: one per GPU, else one per some cores, never more than there is."""

from __future__ import annotations

import pytest

from relation_neurons.ablation.jobs import LocalEngine
from relation_neurons.engines import make_engine
from relation_neurons.engines.sizes import choose_size
from relation_neurons.errors import EngineError, UnknownOptionError

BIG = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 4.0}]


@pytest.mark.parametrize(
    ("nodes", "gpu", "workers", "threads", "size"),
    [
        ([{"CPU": 2.0}], False, None, 1, (2, 1, 0)),
        ([{"CPU": 2.0}], False, None, 2, (1, 2, 0)),
        ([{"CPU": 2.0}], False, 2, 2, (2, 1, 0)),
        ([{"CPU": 2.0}], False, None, 4, (1, 2, 0)),  # fewer cores than threads
        ([{"CPU": 64.0}], False, None, 4, (16, 4, 0)),
        ([{"CPU": 3.0}, {"CPU": 3.0}], False, None, 2, (2, 2, 0)),  # no worker on two machines
        (BIG, True, None, 4, (8, 4, 1)),
        (BIG, True, 3, 4, (3, 4, 1)),
        ([{"CPU": 8.0, "GPU": 8.0}], True, None, 4, (8, 1, 1)),
        ([{"CPU": 64.0}, {"CPU": 4.0, "GPU": 1.0}], True, None, 4, (1, 4, 1)),
    ],
)
def test_sizes(nodes, gpu, workers, threads, size):
    found = choose_size(nodes, gpu=gpu, workers=workers, threads=threads)
    assert (found.workers, found.threads, found.gpus) == size


@pytest.mark.parametrize(
    ("nodes", "gpu", "workers"),
    [([{"CPU": 2.0}], False, 3), ([{"CPU": 8.0}], True, None), (BIG, True, 9), ([], False, None)],
)
def test_no_room_is_an_error_that_says_what_there_is(nodes, gpu, workers):
    with pytest.raises(EngineError, match=r"the cluster has \d+ CPUs, \d+ GPUs.*--workers"):
        choose_size(nodes, gpu=gpu, workers=workers, threads=2)


def test_engines_by_name(monkeypatch):
    assert isinstance(make_engine(), LocalEngine)
    with pytest.raises(UnknownOptionError, match="Did you mean ray"):
        make_engine("rya")
    with pytest.raises(UnknownOptionError, match="are for the engine `ray`"):
        make_engine("local", workers=2)
    with pytest.raises(UnknownOptionError, match="workers is 0"):
        make_engine("ray", workers=0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"-e \"\.\[ray\]"):
        make_engine("ray")
