"""Starting or joining a cluster, with a stand-in for Ray: a slow start is tried again."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from types import SimpleNamespace

import pytest

import relation_neurons as rn
from relation_neurons.engines import make_engine
from relation_neurons.errors import EngineError


class Ray(SimpleNamespace):
    """Whose `init` fails as often as it is told to."""

    def __init__(self, *failures):
        super().__init__(failures=list(failures), started=[], ended=0, __spec__="found")

    def is_initialized(self):
        return False

    def init(self, **how):
        self.started.append(how["address"])
        if self.failures:
            raise self.failures.pop(0)

    def shutdown(self):
        self.ended += 1


SLOW = "The current node timed out during startup."


def connect(monkeypatch, ray, **how):
    monkeypatch.setitem(sys.modules, "ray", ray)
    engine = rn.RayEngine(**how)
    return engine, engine._connected


def test_a_cluster_that_is_slow_to_start_is_tried_again(monkeypatch):
    ray = Ray(Exception(SLOW), Exception(SLOW))
    engine, start = connect(monkeypatch, ray)
    start()
    assert ray.started == ["local"] * 3 and ray.ended == 2
    engine.close()
    assert ray.ended == 3


def test_a_cluster_that_never_starts_is_an_error(monkeypatch):
    ray = Ray(*[Exception(SLOW)] * 9)
    with pytest.raises(EngineError, match=r"No Ray cluster on this machine: .*timed out"):
        connect(monkeypatch, ray)[1]()
    assert ray.started == ["local"] * 3


def test_a_cluster_that_is_not_there_is_an_error_at_once(monkeypatch):
    ray = Ray(ConnectionError("nobody answers"))
    engine, start = connect(monkeypatch, ray, address="10.0.0.1:6379")
    with pytest.raises(EngineError, match=r"No Ray cluster at 10\.0\.0\.1:6379: nobody answers"):
        start()
    assert ray.started == ["10.0.0.1:6379"]
    engine.close()
    assert ray.ended == 0  # what was never joined is not ended


@pytest.mark.parametrize("make", [rn.RayEngine, partial(make_engine, "ray")])
def test_what_is_logged_goes_to_log_and_by_its_earlier_name_to_say(monkeypatch, make):
    for name in ("log", "say"):
        ray, lines = Ray(Exception(SLOW)), []
        monkeypatch.setitem(sys.modules, "ray", ray)
        with pytest.deprecated_call() if name == "say" else contextlib.nullcontext():
            engine = make(**{name: lines.append})
        engine._connected()
        assert lines == ["ray: the cluster did not start in 30 s; trying again"]
