"""Many seeds: the same results from any number of processes, a store that is never wrong, and processes that die."""

import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from papertwin.errors import ParameterError, RunError
from papertwin.nets import mlp
from papertwin.robustness import lbfgs, many, pointwise
from papertwin.robustness.many import SeedPool
from papertwin.robustness.outcome import Adversarial, Robustness

LP = {"margin": 1e-6, "solver": "highspy"}
IMAGES = np.random.default_rng(0).random((6, 1, 5, 6))


@pytest.fixture(scope="module")
def model():
    return mlp((30, 20, 6), seed=1)


@pytest.fixture(scope="module")
def pair():
    """A pool of two processes for all tests of this file."""
    with SeedPool(2) as pool:
        yield pool


@pytest.fixture
def searched(monkeypatch):
    """The seeds that are really searched in this process, in order."""
    seen = []
    true = pointwise.pointwise_robustness

    def search(network, seed, **settings):
        seen.append(next(i for i, image in enumerate(IMAGES) if np.array_equal(image, seed)))
        return true(network, seed, **settings)

    monkeypatch.setattr(pointwise, "pointwise_robustness", search)
    return seen


def content(found: list[Adversarial]) -> list[dict]:
    """Everything but the time, with NaN and arrays made comparable."""
    plain = [asdict(replace(outcome, seconds=0.0)) for outcome in found]
    return [
        {key: repr(value.tolist() if isinstance(value, np.ndarray) else value) for key, value in each.items()}
        for each in plain
    ]


def workers() -> list[psutil.Process]:
    """Searching processes of this one that are alive."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "LokyProcess" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.mark.parametrize(("method", "settings"), [("lp", LP), ("lp", {"target": "all"}), ("lbfgs", {"steps": 5})])
def test_the_number_of_processes_changes_nothing(model, pair, method, settings):
    alone = SeedPool(1).search(model, IMAGES, method, settings=settings)
    assert content(pair.search(model, IMAGES, method, settings=settings)) == content(alone)
    function = {"lp": pointwise.pointwise_robustness, "lbfgs": lbfgs.lbfgs_adversarial}[method]
    assert content(alone) == content([function(model, image, **settings) for image in IMAGES])
    assert any(outcome.found for outcome in alone)


def test_one_pool_serves_many_networks(model, pair):
    """More networks than a process remembers, then the first one again."""
    before = {worker.pid for worker in workers()}
    networks = [model, *(mlp((30, 20, 6), seed=seed) for seed in range(2, 3 + many.KEPT)), model]
    for network in networks:
        alone = SeedPool(1).search(network, IMAGES[:3], "lp", settings=LP)
        assert content(pair.search(network, IMAGES[:3], "lp", settings=LP)) == content(alone)
    assert not before or before == {worker.pid for worker in workers()}


def test_progress_ends_at_one(model, pair):
    for pool in (pair, SeedPool(1)):
        seen = []
        pool.search(model, IMAGES, "lp", settings=LP, progress=lambda text, done, seen=seen: seen.append((text, done)))
        shares = [done for _, done in seen]
        assert shares == sorted(shares)
        assert len(shares) == len(IMAGES)
        assert shares[-1] == 1.0
        assert "lp" in seen[0][0]


def test_no_seed_is_no_work(model, pair, tmp_path):
    assert pair.search(model, IMAGES[:0], "lp", store=tmp_path) == []


def test_what_is_stored_comes_back(model, searched, tmp_path):
    pool = SeedPool(1)
    for settings in (LP, LP | {"target": "all"}):
        searched.clear()
        first = pool.search(model, IMAGES, "lp", settings=settings, store=tmp_path)
        assert searched == list(range(len(IMAGES)))
        again = pool.search(model, IMAGES, "lp", settings=settings, store=tmp_path)
        assert searched == list(range(len(IMAGES)))
        assert content(again) == content(first)
        assert [outcome.seconds for outcome in again] == [outcome.seconds for outcome in first]
        assert all(isinstance(outcome, Robustness) for outcome in again)
    other = pool.search(model, IMAGES[:2], "lbfgs", settings={"steps": 3}, store=tmp_path)
    again = pool.search(model, IMAGES[:2], "lbfgs", settings={"steps": 3}, store=tmp_path)
    assert content(other) == content(again)
    assert {type(outcome) for outcome in again} == {Adversarial}


def test_order_of_images_is_free(model, searched, tmp_path):
    pool = SeedPool(1)
    whole = pool.search(model, IMAGES, "lp", settings=LP, store=tmp_path)
    searched.clear()
    assert content(pool.search(model, IMAGES[::-1], "lp", settings=LP, store=tmp_path)) == content(whole[::-1])
    assert searched == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_run_goes_on(model, tmp_path, searched, processes):
    """Stopped by the keyboard after two seeds: those are kept, the others are searched, no process is left."""

    def stop(text, done):
        if done >= 2 / len(IMAGES):
            raise KeyboardInterrupt

    before = {worker.pid for worker in workers()}
    with pytest.raises(KeyboardInterrupt), SeedPool(processes) as pool:
        pool.search(model, IMAGES, "lp", settings=LP, store=tmp_path, progress=stop)
    assert {worker.pid for worker in workers()} == before
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    searched.clear()
    found = SeedPool(1).search(model, IMAGES, "lp", settings=LP, store=tmp_path)
    assert len(searched) == len(IMAGES) - 2
    assert content(found) == content(SeedPool(1).search(model, IMAGES, "lp", settings=LP))


def test_a_killed_script_goes_on(model, tmp_path, searched):
    """A script without `if __name__ == "__main__"`, killed in the middle."""
    script = tmp_path / "script.py"
    script.write_text(f"""
import os, sys
import numpy as np
from papertwin.nets import mlp
from papertwin.robustness.many import SeedPool
images = np.random.default_rng(0).random((6, 1, 5, 6))
with SeedPool(2) as pool:
    pool.search(mlp((30, 20, 6), seed=1), images, "lp", settings={LP!r}, store={str(tmp_path / "store")!r},
                progress=lambda text, done: os.kill(os.getpid(), {int(signal.SIGKILL)}) if done >= 0.5 else None)
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = len(list((tmp_path / "store").rglob("*.npz")))
    assert kept == 3
    SeedPool(1).search(model, IMAGES, "lp", settings=LP, store=tmp_path / "store")
    assert len(searched) == len(IMAGES) - kept


def test_what_changes_a_result_is_searched_again(model, monkeypatch, searched, tmp_path):
    pool = SeedPool(1)

    def count(network=model, images=IMAGES, settings=LP):
        searched.clear()
        pool.search(network, images, "lp", settings=settings, store=tmp_path)
        return len(searched)

    assert count() == len(IMAGES)
    assert count() == 0
    assert count(settings=dict(reversed(LP.items()))) == 0
    assert count(settings=LP | {"margin": 1e-7}) == len(IMAGES)
    assert count(settings={"margin": LP["margin"]}) == len(IMAGES)
    nudged = mlp((30, 20, 6), seed=1)
    with torch.no_grad():
        nudged[1].weight[0, 0] += 1e-6
    assert count(network=nudged) == len(IMAGES)
    assert count(network=nn.Sequential(*model, nn.Identity())) == len(IMAGES)
    monkeypatch.setattr(many, "_source", lambda: "another code")
    assert count() == len(IMAGES)


def test_a_changed_pixel_is_searched_again(model, tmp_path, monkeypatch):
    calls = []
    true = pointwise.pointwise_robustness
    monkeypatch.setattr(
        pointwise, "pointwise_robustness", lambda *args, **settings: calls.append(1) or true(*args, **settings)
    )
    pool = SeedPool(1)
    pool.search(model, IMAGES, "lp", settings=LP, store=tmp_path)
    changed = IMAGES.copy()
    changed[2, 0, 0, 0] = np.nextafter(changed[2, 0, 0, 0], 1.0)
    pool.search(model, changed, "lp", settings=LP, store=tmp_path)
    pool.search(model, IMAGES.reshape(6, 30), "lp", settings=LP, store=tmp_path)
    assert len(calls) == 6 + 1 + 6


def damages(content: bytes):
    """Ways in which a file on a disk goes wrong."""
    yield b""
    for quarter in range(1, 8):
        yield content[: len(content) * quarter // 8]
    yield b"not an archive at all"
    yield b"\x93NUMPY" + content
    middle = len(content) // 2
    yield content[: middle - 30] + bytes(60) + content[middle + 30 :]


def test_a_damaged_entry_is_searched_again(model, searched, tmp_path):
    pool = SeedPool(1)
    whole = content(pool.search(model, IMAGES[:1], "lp", settings=LP, store=tmp_path))
    (entry,) = tmp_path.rglob("*.npz")
    good = entry.read_bytes()
    for damage in damages(good):
        entry.write_bytes(damage)
        searched.clear()
        assert content(pool.search(model, IMAGES[:1], "lp", settings=LP, store=tmp_path)) == whole
        assert searched == [0]
        assert content([many._read(entry, "lp")]) == whole


@pytest.mark.parametrize(
    "values", ["[]", "7", "{}", '{"epsilon": 0.1}', "null", '"text"', '{"epsilon": "far", "witness": 1}']
)
def test_an_entry_of_another_kind_is_no_result(tmp_path, values):
    np.savez(tmp_path / "entry.npz", values=np.array(values))
    assert many._read(tmp_path / "entry.npz", "lp") is None


def test_a_time_limit_is_not_remembered(model, searched, tmp_path):
    """Whether a search ends in time depends on the machine's load, on which no name of a file depends."""
    pool = SeedPool(1)
    settings = LP | {"limit": 0.0}
    for _ in range(2):
        searched.clear()
        found = pool.search(model, IMAGES[:2], "lp", settings=settings, store=tmp_path)
        assert {outcome.status for outcome in found} == {"timeout"}
        assert searched == [0, 1]


def test_another_solver_version_is_another_source(monkeypatch):
    from papertwin import machine

    many._source.cache_clear()
    before = many._source()
    monkeypatch.setattr(machine, "dependencies", lambda: {"highspy": "0.0.1"})
    many._source.cache_clear()
    try:
        assert many._source() != before
    finally:
        many._source.cache_clear()


def test_the_name_of_an_entry_is_the_same_in_every_process(model, tmp_path):
    """A hash that depends on the process would make a store useless."""
    code = (
        "from papertwin.nets import mlp\nfrom papertwin.robustness import many\nimport numpy as np\n"
        "network = many._packed(mlp((30, 20, 6), seed=1))\n"
        "print(many._place('store', 'lp', {'b': 1, 'a': (1, 2)}, network, np.zeros((1, 5, 6))).name)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    here = many._place("store", "lp", {"a": (1, 2), "b": 1}, many._packed(model), np.zeros((1, 5, 6))).name
    assert done.stdout.strip() == here


class Deadly(nn.Sequential):
    """A network that ends the process that unpacks it, as a kernel without memory would."""

    def __reduce__(self):
        return os._exit, (137,)


def test_a_process_that_dies_is_an_error_and_the_pool_recovers(model, tmp_path):
    with SeedPool(2) as pool:
        with pytest.raises(RunError, match="ended early, often for lack of memory"):
            pool.search(Deadly(), IMAGES, "lp", settings=LP)
        found = pool.search(model, IMAGES[:2], "lp", settings=LP, store=tmp_path)
        assert len(found) == 2


def test_a_process_killed_in_the_middle_is_an_error(model, tmp_path):
    before = {worker.pid for worker in workers()}

    def kill(text, done):
        for worker in workers():
            if worker.pid not in before:
                worker.kill()

    images = np.random.default_rng(1).random((40, 1, 5, 6))
    with SeedPool(2) as pool, pytest.raises(RunError, match="Use fewer processes"):
        pool.search(model, images, "lp", settings=LP, store=tmp_path, progress=kill)
    assert {worker.pid for worker in workers()} == before
    assert 1 <= len(list(tmp_path.rglob("*.npz"))) < 40


def test_errors_of_the_search_come_through(model, pair):
    for pool in (pair, SeedPool(1)):
        with pytest.raises(ParameterError, match="Unknown solver"):
            pool.search(model, IMAGES, "lp", settings={"solver": "abacus"})
        with pytest.raises(ParameterError, match="outside the box"):
            pool.search(model, IMAGES + 1, "lp", settings=LP)
        with pytest.raises(ParameterError, match="expected one of lp, lbfgs"):
            pool.search(model, IMAGES, "pgd")
    for processes in (0, -1, 1.5, True):
        with pytest.raises(ParameterError, match="whole number above 0"):
            SeedPool(processes)


def test_threads_are_left_as_they_were(model):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        SeedPool(1).search(model, IMAGES[:1], "lp", settings=LP)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
