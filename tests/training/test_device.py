"""Devices, threads and seeds."""

import os
import random

import numpy as np
import pytest
import torch

from papertwin.errors import ParameterError
from papertwin.training.device import available_devices, pick_device, seed_everything, set_threads, thread_count


@pytest.fixture(autouse=True)
def _restore_threads():
    before = torch.get_num_threads()
    yield
    set_threads(None)
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", available_devices())
def test_every_device_present_computes(name):
    device = pick_device(name)
    assert device.type == name
    assert torch.ones(3, device=device).sum().item() == 3.0
    assert pick_device(device) == device


def test_auto_takes_the_last_present():
    assert available_devices()[0] == "cpu"
    assert pick_device().type == pick_device("AUTO").type == available_devices()[-1]


@pytest.mark.parametrize("name", ["gpu", "", "cpu:0", "cuda:x", "cuda:-1", None, 3, "mps:1"])
def test_unknown_names(name):
    with pytest.raises(ParameterError, match="Unknown device"):
        pick_device(name)


def test_absent_devices_name_what_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(ParameterError, match=r"not available here.*finds cpu"):
            pick_device(name)


def test_cuda_index_must_exist(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ParameterError, match=r"finds 1 CUDA device"):
        pick_device("cuda:1")


def test_threads_by_call_and_by_environment(monkeypatch):
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert thread_count() == 3
    monkeypatch.setenv("NUMBA_NUM_THREADS", "5")
    assert thread_count() == 5
    set_threads(2)
    assert thread_count() == torch.get_num_threads() == 2
    set_threads(None)
    assert thread_count() == 5
    monkeypatch.setenv("NUMBA_NUM_THREADS", "many")
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= thread_count() <= os.cpu_count()


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_bad_thread_counts(count):
    with pytest.raises(ParameterError, match="number of threads"):
        set_threads(count)


def test_seeds_repeat_everything():
    def draw():
        return random.random(), float(np.random.random()), torch.rand(3).tolist()  # noqa: NPY002

    seed_everything(11)
    first = draw()
    seed_everything(12)
    other = draw()
    seed_everything(np.int64(11))
    assert draw() == first
    assert all(a != b for a, b in zip(first, other))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "7", True])
def test_bad_seeds(seed):
    with pytest.raises(ParameterError, match="seed must be"):
        seed_everything(seed)
