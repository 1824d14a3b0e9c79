"""Tests of searches spread over processes: same results, resumed where they stopped, dead processes reported."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.errors import ParameterError, RunError
from papertwin.robustness import many
from papertwin.robustness.many import SeedPool


def network(seed=0):
    """A small random network."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


SEEDS = np.random.default_rng(0).random((6, 4))


def same(first, second):
    """Whether two lists of results agree in everything but the seconds."""
    return all(
        a.epsilon == b.epsilon and a.status == b.status and np.array_equal(a.witness, b.witness, equal_nan=False)
        if a.witness is not None
        else a.epsilon == b.epsilon and b.witness is None
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("method", ["lp", "lbfgs"])
def test_results_do_not_depend_on_the_number_of_processes(method):
    with SeedPool(1) as one, SeedPool(2) as two:
        assert same(one.search(network(), SEEDS, method), two.search(network(), SEEDS, method))


@pytest.fixture
def counted(monkeypatch):
    """The seeds that are really searched."""
    seen = []
    search = many._search
    monkeypatch.setattr(many, "_search", lambda *args: seen.append(args[-1]) or search(*args))
    return seen


def test_a_run_goes_on_where_it_stopped(tmp_path, counted):
    with SeedPool(1) as pool:
        part = pool.search(network(), SEEDS[:3], "lp", store=tmp_path)
        whole = pool.search(network(), SEEDS, "lp", store=tmp_path)
    assert len(counted) == 6
    assert same(whole[:3], part)


@pytest.mark.parametrize(
    "change", [{"settings": {"margin": 1e-3}}, {"model": network(1)}, {"images": SEEDS[:1] + 1e-9}]
)
def test_other_settings_networks_and_images_are_searched_anew(tmp_path, counted, change):
    first = {"model": network(), "images": SEEDS[:1], "settings": {}}
    with SeedPool(1) as pool:
        for arguments in (first, first | change, first):
            pool.search(arguments["model"], arguments["images"], "lp", settings=arguments["settings"], store=tmp_path)
    assert len(counted) == 2


@pytest.mark.parametrize("damage", [b"", b"PK not a zip"])
def test_a_damaged_entry_is_searched_again(tmp_path, counted, damage):
    with SeedPool(1) as pool:
        first = pool.search(network(), SEEDS[:1], "lp", store=tmp_path)
        (entry,) = tmp_path.rglob("*.npz")
        entry.write_bytes(damage)
        assert same(pool.search(network(), SEEDS[:1], "lp", store=tmp_path), first)
    assert len(counted) == 2


class Deadly(nn.Linear):
    """A layer that ends its process."""

    def forward(self, x):
        """End the process, as the system does when memory runs out."""
        os._exit(9)


def test_a_dead_process_is_an_error_not_a_hang():
    with SeedPool(2) as pool, pytest.raises(RunError, match="ended early"):
        pool.search(nn.Sequential(Deadly(4, 3)), SEEDS, "lbfgs")


def test_unknown_methods_and_counts_are_refused():
    with SeedPool(1) as pool, pytest.raises(ParameterError, match="lbfgs"):
        pool.search(network(), SEEDS, "magic")
    with pytest.raises(ParameterError, match="processes"):
        SeedPool(0)
