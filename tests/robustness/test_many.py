"""Tests of searches spread over processes: same results, resumed where they stopped, dead processes reported."""

import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from papertwin import imports
from papertwin.errors import InputError, RunError
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


@pytest.fixture(scope="module")
def two():
    """Two processes, the same for several tests."""
    with SeedPool(2) as pool:
        yield pool


@pytest.mark.parametrize("method", ["lp", "lbfgs"])
def test_results_do_not_depend_on_the_number_of_processes(two, method):
    assert same(SeedPool(1).search(network(), SEEDS, method), two.search(network(), SEEDS, method))


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


@pytest.mark.parametrize("damage", [b"", b"PK not a zip", b"not an archive"])
def test_a_damaged_entry_is_searched_again(tmp_path, counted, damage):
    with SeedPool(1) as pool:
        first = pool.search(network(), SEEDS[:1], "lp", store=tmp_path)
        (entry,) = tmp_path.rglob("*.npz")
        entry.write_bytes(damage)
        assert same(pool.search(network(), SEEDS[:1], "lp", store=tmp_path), first)
    assert len(counted) == 2


def test_a_dead_process_is_an_error_not_a_hang():
    class Deadly(nn.Linear):
        """A layer that ends its process, as the system does when memory runs out."""

        def forward(self, x):
            os._exit(9)

    with SeedPool(2) as pool, pytest.raises(RunError, match="ended early"):
        pool.search(nn.Sequential(Deadly(4, 3)), SEEDS, "lbfgs")


def test_unknown_methods_and_counts_are_refused():
    with SeedPool(1) as pool, pytest.raises(InputError, match="lbfgs"):
        pool.search(network(), SEEDS, "magic")
    with pytest.raises(InputError, match="processes"):
        SeedPool(0)


LP = {"margin": 1e-6, "solver": "highspy"}
MLP = "mlp((4, 20, 6), seed=1)"
KILLED = f"""
import os, signal
import numpy as np
from papertwin.nets import mlp
from papertwin.robustness.many import SeedPool
seeds = np.random.default_rng(0).random((6, 4))
def die(text, done):
    if done >= 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
with SeedPool(2) as pool:
    pool.search({MLP}, seeds, "lp", settings={LP!r}, store="store", progress=die)
"""


def workers():
    """Numbers of the searching processes of this one that are alive."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if "LokyProcess" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.add(child.pid)
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_script_leaves_its_results_and_no_process(tmp_path, counted):
    """A script without `if __name__ == "__main__"`; processes that outlive it would hold its output open."""
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((tmp_path / "store").rglob("*.npz"))) == 3
    from papertwin.nets import mlp

    with SeedPool(1) as pool:
        pool.search(mlp((4, 20, 6), seed=1), SEEDS, "lp", settings=LP, store=tmp_path / "store")
    assert len(counted) == 3


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_stopped_by_the_keyboard_keeps_what_was_finished(tmp_path, counted, processes):
    def stop(text, done):
        if done >= 2 / len(SEEDS):
            raise KeyboardInterrupt

    before = workers()
    with SeedPool(processes) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.search(network(), SEEDS, "lp", store=tmp_path, progress=stop)
        assert workers() == before
        assert len(list(tmp_path.rglob("*.npz"))) == 2
        counted.clear()
        part = pool.search(network(), SEEDS, "lp", store=tmp_path)
    with SeedPool(1) as pool:
        assert same(part, pool.search(network(), SEEDS, "lp"))
    assert workers() == before


def test_one_pool_serves_many_networks(two):
    """More networks than a process remembers, then the first again, from the same processes."""
    known = None
    for seed in (0, *range(1, 2 + many.KEPT), 0):
        found = two.search(network(seed), SEEDS[:3], "lp", settings=LP)
        assert same(found, SeedPool(1).search(network(seed), SEEDS[:3], "lp", settings=LP))
        known = known or workers()
        assert workers() == known


def test_a_process_killed_in_the_middle_is_an_error_and_the_pool_recovers(tmp_path):
    before = workers()

    def kill(text, done):
        for number in workers() - before:
            os.kill(number, signal.SIGKILL)

    seeds = np.random.default_rng(1).random((40, 4))
    with SeedPool(2) as pool:
        with pytest.raises(RunError, match="Use fewer processes"):
            pool.search(network(), seeds, "lp", store=tmp_path, progress=kill)
        assert 1 <= len(list(tmp_path.rglob("*.npz"))) < 40
        assert len(pool.search(network(), seeds, "lp", store=tmp_path)) == 40
    assert workers() == before


@pytest.mark.parametrize("share", [0.125, 0.25, 0.5, 0.75, 0.9, 0.99])
def test_half_an_entry_is_no_entry(tmp_path, counted, share):
    with SeedPool(1) as pool:
        first = pool.search(network(), SEEDS[:1], "lp", store=tmp_path)
        (entry,) = tmp_path.rglob("*.npz")
        whole = entry.read_bytes()
        entry.write_bytes(whole[: int(share * len(whole))])
        assert same(pool.search(network(), SEEDS[:1], "lp", store=tmp_path), first)
        middle = len(whole) // 2
        entry.write_bytes(whole[: middle - 40] + bytes(80) + whole[middle + 40 :])
        assert same(pool.search(network(), SEEDS[:1], "lp", store=tmp_path), first)
    assert len(counted) == 3


@pytest.mark.parametrize("values", ["[]", "7", "{}", "null", '"text"', '{"epsilon": 0.1}', '{"epsilon": "far"}'])
def test_an_entry_of_another_kind_is_no_entry(tmp_path, values):
    np.savez(tmp_path / "entry.npz", values=np.array(values))
    assert many._read(tmp_path / "entry.npz", "lp") is None


def test_another_code_or_solver_is_searched_anew(tmp_path, counted, monkeypatch):
    true = imports.metadata.version
    with SeedPool(1) as pool:
        pool.search(network(), SEEDS[:1], "lp", store=tmp_path)
        for package in many.PACKAGES:
            monkeypatch.setattr(
                imports.metadata, "version", lambda name, new=package: "0" if name == new else true(name)
            )
            imports.digest.cache_clear()
            pool.search(network(), SEEDS[:1], "lp", store=tmp_path)
        monkeypatch.undo()
        imports.digest.cache_clear()
    assert len({*tmp_path.rglob("*.npz")}) == 1 + len(many.PACKAGES)


def test_the_name_of_an_entry_is_the_same_in_every_process():
    """Names that depend on the process would make a store useless."""
    code = (
        "import numpy as np\nfrom papertwin.nets import mlp\nfrom papertwin.robustness import many\n"
        f"place = many._place('store', 'lp', {{'b': 1, 'a': 2}}, many._packed({MLP}), np.zeros(4))\nprint(place.name)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    from papertwin.nets import mlp

    here = many._place("store", "lp", {"a": 2, "b": 1}, many._packed(mlp((4, 20, 6), seed=1)), np.zeros(4))
    assert done.stdout.strip() == here.name


def test_progress_ends_at_one_and_errors_come_through(two):
    for pool in (SeedPool(1), two):
        seen = []
        pool.search(network(), SEEDS, "lp", progress=lambda text, done, seen=seen: seen.append(done))
        assert seen == sorted(seen)
        assert (len(seen), seen[-1]) == (len(SEEDS), 1.0)
        assert pool.search(network(), SEEDS[:0], "lp") == []
        with pytest.raises(InputError, match="Unknown solver"):
            pool.search(network(), SEEDS, "lp", settings={"solver": "abacus"})


def test_threads_are_left_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        SeedPool(1).search(network(), SEEDS[:1], "lp")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
