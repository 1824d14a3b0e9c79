"""Two processes that see half of each batch train the same masks and weights as one that sees all of it."""

import subprocess
import sys

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.updaters import SET, RigL, SRigL, _from_first_rank

KINDS = {"SET": SET, "RigL": RigL, "SRigL": SRigL}
STEPS = 16


def train(kind, part, wrap=lambda model: model):
    """Train on a part of each batch of 12 images; return masks, weights and what was seen on the way."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Flatten(), nn.Linear(32, 5)).double()
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = DropSchedule(steps=20, every=3, drop=0.6)
    updater = KINDS[kind](model, optimizer, schedule, sparsity=0.6, passes=2, first="masked")
    wrapped = wrap(model)
    for step in range(STEPS):
        rng = torch.Generator().manual_seed(step)
        images = torch.randn(12, 4, 6, 6, generator=rng, dtype=torch.float64)
        classes = torch.randint(0, 5, (12,), generator=rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(images[part]), classes[part]).backward()
        optimizer.step()
        updater.step()
    return {"masks": updater.masks, "weights": model.state_dict(), "log": updater.state_dict()["log"]}


def one_of_two(rank, store, out):
    """Be one of the two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", store=distributed.FileStore(store, 2), rank=rank, world_size=2)
    half = slice(6 * rank, 6 * rank + 6)
    found = {kind: train(kind, half, DistributedDataParallel) for kind in KINDS}
    torch.save(found | {"first": _from_first_rank(torch.tensor([True, rank == 0, rank == 1]))}, out)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two processes ended with."""
    folder = tmp_path_factory.mktemp("distributed")
    outs = [folder / f"{rank}.pt" for rank in (0, 1)]
    commands = [[sys.executable, __file__, str(rank), str(folder / "store"), str(outs[rank])] for rank in (0, 1)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [torch.load(out) for out in outs]


def same_masks(one, other):
    return all(torch.equal(one["masks"][name], other["masks"][name]) for name in one["masks"])


@pytest.mark.parametrize("kind", KINDS)
def test_processes_agree(both, kind):
    first, second = (each[kind] for each in both)
    assert same_masks(first, second)
    assert first["log"] == second["log"]
    assert sum(entry["grown"] for entry in first["log"]) > 0
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_as_one_that_sees_the_whole_batch(both, kind):
    whole = train(kind, slice(None))
    assert same_masks(both[0][kind], whole)
    for name, weight in whole["weights"].items():
        assert torch.allclose(both[0][kind]["weights"][name], weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["RigL", "SRigL"])
@pytest.mark.parametrize("part", [slice(0, 6), slice(6, 12)])
def test_half_of_the_batch_leads_elsewhere(both, kind, part):
    assert not same_masks(both[0][kind], train(kind, part))


def test_masks_come_from_the_first_process(both):
    assert [each["first"].tolist() for each in both] == [[True, True, False]] * 2


if __name__ == "__main__":
    one_of_two(int(sys.argv[1]), *sys.argv[2:])
