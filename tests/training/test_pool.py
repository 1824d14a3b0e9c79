"""Work spread over processes: same results in the same order, one thread each, errors that come through."""

import os

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from papertwin.errors import InputError, RunError
from papertwin.training import pool as pools
from papertwin.training.loop import torch_threads
from papertwin.training.pool import Pool


@pytest.fixture(scope="module", params=[1, 2])
def pool(request):
    with Pool(request.param) as each:
        yield each


def test_results_come_in_the_order_of_the_tasks_and_progress_ends_with_all(pool):
    def slow_first(index):
        return sum(range(10**6 if index == 0 else 10)) * 0 + index**2

    seen = []
    found = pool.map(slow_first, [(index,) for index in range(7)], progress=lambda *done: seen.append(done))
    assert found == [index**2 for index in range(7)]
    assert seen == [(done, 7) for done in range(1, 8)]
    assert pool.map(slow_first, []) == []


def test_every_task_has_one_thread_and_several_processes_share_the_work(pool):
    with torch_threads(2):
        found = pool.map(lambda index: (torch.get_num_threads(), os.getpid()), [(index,) for index in range(8)])
        after = torch.get_num_threads()
    assert {threads for threads, _ in found} == {1}
    assert (os.getpid() in {number for _, number in found}) == (pool.processes == 1)
    assert after == 2


def test_linear_algebra_has_one_thread_too(pool):
    def threads(index):
        np.ones((2, 2)) @ np.ones((2, 2))
        return {each["num_threads"] for each in threadpool_info()}

    with threadpool_limits(2):
        before = threadpool_info()
        assert pool.map(threads, [(index,) for index in range(3)]) == [{1}] * 3
        assert {2} == {each["num_threads"] for each in before}
        assert threadpool_info() == before


def test_a_refusal_comes_through_and_the_pool_goes_on(pool):
    def refuse(index):
        if index == 2:
            raise InputError("not this one")
        return index

    with pytest.raises(InputError, match="not this one"):
        pool.map(refuse, [(index,) for index in range(4)])
    assert pool.map(refuse, [(5,), (6,)]) == [5, 6]


def test_a_dead_process_is_an_error_that_says_what_to_do():
    with Pool(2) as pool, pytest.raises(RunError, match=r"Use fewer processes \(now 2\)"):
        pool.map(lambda index: os._exit(9), [(0,), (1,)])


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "two"])
def test_a_number_that_is_no_count_is_refused(wrong):
    with pytest.raises(InputError, match="processes"):
        Pool(wrong)


@pytest.mark.parametrize(
    ("kind", "asked", "processes"),
    [("cuda", 0, 1), ("cuda", 5, 1), ("mps", 5, 1), ("cpu", 0, 7), ("cpu", 5, 5), ("cpu", 1, 1)],
)
def test_an_accelerator_has_one_process_and_a_cpu_as_many_as_asked_for_or_one_a_core(
    monkeypatch, kind, asked, processes
):
    named = []
    monkeypatch.setattr(pools, "pick_device", lambda name: named.append(name) or torch.device(kind))
    monkeypatch.setattr(pools, "thread_count", lambda: 7)
    assert Pool.on("auto", asked).processes == processes
    assert named == ["auto"]


def test_a_pool_on_a_cpu_has_one_process_a_core_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(pools, "thread_count", lambda: 7)
    assert Pool.on("cpu").processes == 7
    with pytest.raises(InputError, match="processes must be a whole number of at least 1, got -1"):
        Pool.on("cpu", -1)
