"""The pool of workers, with a stand-in for Ray: who gets what, and what becomes of a dead worker's part."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from relation_neurons.engines.pool import MOST_DEATHS, Pool
from relation_neurons.errors import (
    ActivationError,
    EngineError,
    ModelLoadError,
    OutOfMemoryError,
)
from relation_neurons.storage.chunks import packed


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class Cluster:
    """Ray with workers that do at once what a script says; a task ends when it is waited for."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, makes=None, loads=None):
        self.makes = makes or (lambda worker, place: {"table": packed(table(place))})
        self.loads = loads or (lambda worker: {"process": 100 + worker, "node": "here"})
        self.started, self.killed, self.asked = 0, [], []

    def start(self):
        number, self.started = self.started, self.started + 1
        worker = Handle()
        worker.number = number
        worker.load = SimpleNamespace(remote=lambda: Task(lambda: self.loads(number)))
        worker.make = SimpleNamespace(remote=lambda *what: Task(lambda: self._make(number, *what)))
        return worker

    def _make(self, number, name, message, place):
        self.asked.append((number, place))
        return self.makes(number, place)

    def put(self, what):
        return what

    def wait(self, tasks, num_returns, timeout):
        return tasks[:1], tasks[1:]

    def get(self, task):
        return task.run()

    def kill(self, worker, no_restart):
        self.killed.append(worker.number)


class Handle:
    """Of an actor; it can be a key."""


class Task:
    def __init__(self, run):
        self.run = run


class Job:
    def keys(self):
        return []

    def begin(self, model):
        raise AssertionError("only workers begin a job")

    def to_message(self):
        return {}


def table(place):
    return pd.DataFrame({"place": [place]})


def pool_of(cluster, workers=2):
    said = []
    return Pool(cluster, cluster.start, workers, "the-model", said.append), said


def done(pool, places):
    found = list(pool.work(Job(), places))
    assert all(int(made["place"].iloc[0]) == place for place, made in found)
    return [place for place, _ in found]


def failure(kind, message, **more):
    return {"error": kind, "message": message, "node": "there", "trace": "line 1", **more}


def test_every_place_is_made_once_and_by_all_workers():
    cluster = Cluster()
    pool, _ = pool_of(cluster)
    assert sorted(done(pool, [3, 4, 5, 6, 7])) == [3, 4, 5, 6, 7]
    assert sorted(place for _, place in cluster.asked) == [3, 4, 5, 6, 7]
    assert {number for number, _ in cluster.asked} == {0, 1}
    assert sorted(pool.processes) == [100, 101]
    pool.stop()
    assert sorted(cluster.killed) == [0, 1]


def test_the_part_of_a_dead_worker_is_done_by_another_and_a_new_worker_takes_its_seat():
    def makes(worker, place):
        if worker == 0:
            raise RayError("the process was killed")
        return {"table": packed(table(place))}

    cluster = Cluster(makes)
    pool, said = pool_of(cluster)
    assert sorted(done(pool, range(6))) == list(range(6))
    assert cluster.started == 3 and sum(number == 0 for number, _ in cluster.asked) == 1
    assert any("process 100" in line and "another is started" in line for line in said)
    assert sorted(pool.processes) == [101, 102]


def test_a_place_that_kills_every_worker_stops_the_run():
    def makes(worker, place):
        if place == 2:
            raise RayError("out of memory")
        return {"table": packed(table(place))}

    cluster = Cluster(makes)
    pool, _ = pool_of(cluster)
    with pytest.raises(
        EngineError, match=r"3 workers died over the same ablated set.*out of memory"
    ):
        done(pool, range(5))
    assert sum(place == 2 for _, place in cluster.asked) == MOST_DEATHS


def test_workers_that_die_while_loading_are_not_started_for_ever():
    def loads(worker):
        raise RayError("killed while loading")

    cluster = Cluster(loads=loads)
    pool, _ = pool_of(cluster)
    with pytest.raises(EngineError, match=r"No worker is left.*killed while loading.*--workers"):
        done(pool, range(3))
    assert cluster.started == 2 * MOST_DEATHS and cluster.asked == []


def test_the_others_go_on_where_one_cannot_be_started():
    def loads(worker):
        if worker != 1:
            raise RayError("killed while loading")
        return {"process": 101, "node": "here"}

    cluster = Cluster(loads=loads)
    pool, _ = pool_of(cluster)
    assert sorted(done(pool, range(3))) == [0, 1, 2]
    assert {number for number, _ in cluster.asked} == {1}


def test_a_model_that_cannot_be_loaded_is_one_error_in_the_workers_words():
    cluster = Cluster(loads=lambda n: failure("ModelLoadError", "weights cut off", loading=True))
    pool, _ = pool_of(cluster)
    with pytest.raises(ModelLoadError, match="on there cannot load the-model: weights cut off"):
        done(pool, range(3))
    assert cluster.started == 2 and cluster.asked == []


def test_memory_that_runs_out_while_a_worker_loads_is_said_as_that():
    cluster = Cluster(loads=lambda n: failure("OutOfMemoryError", "full", loading=True))
    with pytest.raises(OutOfMemoryError, match=r"runs out of memory while it loads.*--workers"):
        done(pool_of(cluster)[0], range(3))


def test_weights_that_differ_are_an_error_of_the_engine():
    cluster = Cluster(loads=lambda n: failure("EngineError", "the weights differ", loading=True))
    with pytest.raises(EngineError, match="on there cannot take part: the weights differ"):
        done(pool_of(cluster)[0], range(3))


@pytest.mark.parametrize(
    ("kind", "raised", "match"),
    [
        ("ActivationError", ActivationError, "^logits hold NaN"),
        ("ZeroDivisionError", EngineError, "ZeroDivisionError: logits hold NaN"),
        ("near_matches", EngineError, "near_matches: logits"),  # no error, though it stands there
    ],
)
def test_what_a_place_raises_is_raised_here(kind, raised, match):
    cluster = Cluster(lambda worker, place: failure(kind, "logits hold NaN"))
    with pytest.raises(raised, match=match) as caught:
        done(pool_of(cluster)[0], range(3))
    assert "line 1" in caught.value.__notes__[0]


def test_an_error_outside_the_workers_own_code_is_not_taken_for_a_death():
    def makes(worker, place):
        raise RayTaskError("Traceback\n  ModuleNotFoundError: relation_neurons")

    cluster = Cluster(makes)
    with pytest.raises(EngineError, match="A worker failed: ModuleNotFoundError"):
        done(pool_of(cluster)[0], range(3))
    assert len(cluster.asked) == 1


def test_what_is_left_of_a_job_that_was_broken_off_is_no_part_of_the_next():
    cluster = Cluster()
    pool, _ = pool_of(cluster)
    for _ in pool.work(Job(), range(4)):
        break  # the other worker is still at it
    assert sorted(done(pool, [10, 11, 12])) == [10, 11, 12]
