"""What the processes of a data-parallel training agree on: which gradients came, their mean, and masks.

A group is None (the default group of torch.distributed where that is initialised, else this process alone), False
(this process alone) or a `torch.distributed.ProcessGroup` that this process belongs to.
"""

from typing import Any

import torch
from torch import distributed

from papertwin.errors import InputError

Group = Any  # None, False or a ProcessGroup, a class that builds of torch without torch.distributed lack


def check_group(group: Group) -> None:
    """Refuse what is no group.

    Raises:
        InputError: it is neither None nor False nor a group that this process belongs to.
    """
    if group is None or group is False:
        return
    if not distributed.is_available() or not isinstance(group, distributed.ProcessGroup):
        raise InputError(
            f"group must be None, False or a torch.distributed.ProcessGroup of which this process is a member, "
            f"got {group!r}."
        )


def together(group: Group) -> bool:
    """Whether there are processes to agree with."""
    return group is not False and distributed.is_available() and distributed.is_initialized()


def everywhere(flags: list[bool], group: Group, device: torch.device) -> list[bool]:
    """Return which flags are True in every process; all must ask at once, for as many, with tensors on `device`."""
    if not together(group):
        return flags
    both = torch.tensor(flags, dtype=torch.uint8, device=device)
    distributed.all_reduce(both, distributed.ReduceOp.MIN, group=group)
    return [bool(each) for each in both.tolist()]


def mean_(values: torch.Tensor, group: Group) -> torch.Tensor:
    """Put the mean over all processes in the place of values of any shape, and return it."""
    if together(group):
        distributed.all_reduce(values, group=group)
        values /= distributed.get_world_size(group)
    return values


def from_first(mask: torch.Tensor, group: Group) -> torch.Tensor:
    """Take the mask, bool of any shape, of the group's rank 0: ties and roundings cannot part the processes."""
    if not together(group):
        return mask
    whole = mask.to(torch.uint8)
    distributed.broadcast(whole, 0 if group is None else distributed.get_global_rank(group, 0), group=group)
    return whole.bool()
