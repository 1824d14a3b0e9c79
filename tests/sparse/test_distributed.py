"""Two processes that see half of each batch train the same masks and weights as one that sees all of it."""

import os
import subprocess
import sys
import time

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from papertwin.errors import InputError
from papertwin.sparse.processes import from_first
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.updaters import SET, RigL, SRigL

KINDS = {"SET": SET, "RigL": RigL, "SRigL": SRigL}
STEPS = 16


def train(kind, part, wrap=lambda model: model, group=None):
    """Train on a part of each batch of 12 images; return masks, weights and what was seen on the way."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Flatten(), nn.Linear(32, 5)).double()
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = DropSchedule(steps=20, every=3, drop=0.6)
    updater = KINDS[kind](model, optimizer, schedule, sparsity=0.6, passes=2, first="masked", group=group)
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


def refused(rank, value=None):
    """Let process 1 alone see no gradient, or one that is `value`; return what this process says at the update."""
    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updater = RigL(model, optimizer, DropSchedule(steps=20, every=1), sparsity=0.5)
    if rank == 0:
        model(torch.ones(2, 6)).square().sum().backward()
    elif value is not None:
        model(torch.full((2, 6), value)).sum().backward()
    try:
        updater.step()
    except InputError as error:
        return str(error)
    return "nothing"


def one_of_two(rank, store, out):
    """Be one of the two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", store=distributed.FileStore(store, 2), rank=rank, world_size=2)
    half = slice(6 * rank, 6 * rank + 6)
    found = {kind: train(kind, half, DistributedDataParallel) for kind in KINDS}
    masks = torch.tensor([True, rank == 0, rank == 1])
    pair, own = distributed.new_group([0, 1]), [distributed.new_group([each]) for each in (0, 1)]
    found["first"] = [from_first(masks, group) for group in (None, pair, False, own[rank])]
    found["pair"] = train("RigL", half, DistributedDataParallel, group=pair)
    found["alone"] = [train("RigL", half, group=group) for group in (False, own[rank])]
    found["refused"] = [refused(rank), refused(rank, torch.nan)]
    try:
        train("RigL", half, group=own[1 - rank])
    except InputError as error:
        found["stranger"] = str(error)
    torch.save(found, out)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two processes ended with."""
    folder = tmp_path_factory.mktemp("distributed")
    outs = [folder / f"{rank}.pt" for rank in (0, 1)]
    commands = [[sys.executable, __file__, str(rank), str(folder / "store"), str(outs[rank])] for rank in (0, 1)]
    finish(commands, folder)
    return [torch.load(out) for out in outs]


def finish(commands, folder, seconds=120):
    """Run commands at once; as soon as one fails, or all have taken too long, end them and show what they said."""
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    logs = [folder / f"{place}.log" for place in range(len(commands))]
    processes = []
    try:
        for command, log in zip(commands, logs):
            with log.open("w") as stream:
                processes.append(subprocess.Popen(command, stderr=stream, env=environment))
        until = time.monotonic() + seconds
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            if time.monotonic() > until:
                break
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = "\n".join(f"process {place}:\n{log.read_text()}" for place, log in enumerate(logs))
    assert codes == [0] * len(commands), f"exit codes {codes} (None: was still running)\n{said}"


@pytest.mark.parametrize("seconds", [60, 1])
def test_what_processes_said_is_shown_as_soon_as_one_fails(tmp_path, seconds):
    """Or when all have taken too long, which none has to fail for."""
    slow = "import sys, time; print('slow', file=sys.stderr, flush=True); time.sleep(90)"
    fast = "raise SystemExit('broken')" if seconds == 60 else slow
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"exit codes .*None.*\n *process 0:\n(.*\n)* *process 1:\n") as raised:
        finish([[sys.executable, "-c", code] for code in (slow, fast)], tmp_path, seconds)
    assert time.monotonic() - began < 30
    assert ("broken" in str(raised.value)) == (seconds == 60)


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
    """Of the group, if there is one."""
    found = [[mask.tolist() for mask in each["first"]] for each in both]
    shared, own = [[True, True, False]] * 2, [[[True, True, False]] * 2, [[True, False, True]] * 2]
    assert found == [shared + own[0], shared + own[1]]


def test_a_group_of_all_is_the_default_group(both):
    for each in both:
        assert same_masks(each["pair"], each["RigL"])
        assert all(torch.equal(each["pair"]["weights"][name], w) for name, w in each["RigL"]["weights"].items())


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_can_train_each_its_own_model(both, rank):
    """Without a group, or in a group of one, it is as if the other process were not there."""
    alone = train("RigL", slice(6 * rank, 6 * rank + 6))
    for each in both[rank]["alone"]:
        assert same_masks(each, alone)
        assert all(torch.equal(each["weights"][name], weight) for name, weight in alone["weights"].items())
    assert not same_masks(both[0]["alone"][0], both[1]["alone"][0])


def test_what_one_process_lacks_all_refuse(both):
    """The other would wait for ever, or grow by what is not finite."""
    for each in both:
        assert each["refused"][0].startswith("Layers that have seen no gradient")
        assert each["refused"][1].startswith("Mean gradients at the update after step 1 are not finite")


def test_groups_of_others_are_refused(both):
    assert all("of which this process is a member" in each["stranger"] for each in both)


if __name__ == "__main__":
    one_of_two(int(sys.argv[1]), *sys.argv[2:])
