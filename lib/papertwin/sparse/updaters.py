"""Train sparse networks from scratch: static masks, SET, RigL and SRigL behind one small interface.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> sparse = SRigL(model, optimizer, DropSchedule(steps=100, every=10), sparsity=0.5)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     model(torch.ones(1, 8)).square().sum().backward()
    ...     optimizer.step()
    ...     sparse.step()
    >>> from papertwin.sparse import has_constant_fan_in
    >>> [has_constant_fan_in(mask) for mask in sparse.masks.values()]
    [True, True]

Masked weights are 0 in the model itself: it computes as ever, and its gradient is that of the dense layer, of which
only the active part reaches the optimiser. What the optimiser remembers of each weight (tensors of the weight's shape,
as of SGD, Adam, AdamW and RMSprop) is masked, and forgotten where a connection is new; Adam and RMSprop then take large
first steps there, since they count the steps of the whole tensor. With torch.distributed each process makes the same
masks, given the same seed: gradients are averaged, new masks come from rank 0.

Sources as in `papertwin.sparse.growing`. An update follows the optimiser's step; gradients are averaged over the last
`passes` backward passes. Ours: what an interrupted training needs to go on bit for bit is in `state_dict`.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import distributed, nn

from papertwin.checks import SEEDS, is_whole
from papertwin.errors import InputError
from papertwin.sparse.densities import Distribution, budgets, whole_part
from papertwin.sparse.growing import rigl_mask, set_mask, srigl_mask
from papertwin.sparse.initialising import First, sparse_init_
from papertwin.sparse.masks import SPARSE, constant_fan_in_mask, fan_ins, random_mask, sparse_layers
from papertwin.sparse.schedule import DropSchedule


@dataclass(frozen=True)
class LayerUpdate:
    """What one update did to one layer.

    Attributes:
        step: steps of the optimiser before it.
        layer: name.
        fraction: share of the active weights that was to be dropped.
        dropped: weights that were active and are not any more.
        grown: weights that are newly active.
        nonzero: active weights afterwards.
        active: neurons that have any.
        fan_in: the most that a neuron has.
        ablated: neurons that had active weights and have none any more.
        revived: neurons that had none and have some again.
        least: weights that had to matter for a neuron to stay; 0 where none is ablated.
    """

    step: int
    layer: str
    fraction: float
    dropped: int
    grown: int
    nonzero: int
    active: int
    fan_in: int
    ablated: int
    revived: int
    least: int


class Updater:
    """Masks of a model in training; this one never changes them (static sparse training).

    Attributes:
        budgets: layer → number of weights that it may have.
        masks: layer → bool tensor of the shape of its weights.
        log: what was done, an entry a layer and update.
        steps: of the optimiser so far.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: DropSchedule,
        *,
        sparsity: float,
        distribution: Distribution = "erk",
        dense: Iterable[str] = (),
        first: First = "fan_in",
        passes: int = 1,
        seed: int = 0,
    ):
        """Draw masks and first weights.

        Args:
            model: its linear layers and convolutions become sparse, on whatever device they are.
            optimizer: of its parameters.
            schedule: when connections change, and how many.
            sparsity: share of their weights that is masked, in [0, 1).
            distribution: over the layers, erk or uniform.
            dense: names of layers that stay dense.
            first: kind of first weights, see `papertwin.sparse.initialising`.
            passes: backward passes whose gradients are averaged for an update: the last ones, of those since the one
                before.
            seed: of masks, first weights and random growth.

        Raises:
            InputError: an argument is out of range, or a layer would keep nothing.
        """
        self._layers = sparse_layers(model, dense)
        self._last = [name for name, module in model.named_modules() if isinstance(module, SPARSE)][-1]
        if not is_whole(passes, 1) or not is_whole(seed, 0, SEEDS - 1):
            raise InputError(f"passes must be a whole number above 0 and seed one from 0, got {passes!r} and {seed!r}.")
        shapes = {name: tuple(layer.weight.shape) for name, layer in self._layers.items()}
        self.budgets = budgets(shapes, sparsity, distribution)
        self.schedule, self.steps, self.log, self._optimizer = schedule, 0, [], optimizer
        self._generator = torch.Generator().manual_seed(int(seed))
        self.masks: dict[str, torch.Tensor] = {}
        for name, layer in self._layers.items():
            mask = self._first_mask(name, shapes[name])
            self.masks[name] = torch.empty_like(layer.weight, dtype=torch.bool).copy_(mask)
            sparse_init_(layer.weight, self.masks[name], first, self._generator)
        self._factors = {name: self.masks[name].to(layer.weight.dtype) for name, layer in self._layers.items()}
        self.ever = {name: mask.clone() for name, mask in self.masks.items()}
        self._seen: dict[str, deque[torch.Tensor]] = {name: deque(maxlen=int(passes)) for name in self._layers}
        self._hooks = [layer.weight.register_hook(self._hook(name)) for name, layer in self._layers.items()]

    def step(self) -> None:
        """Mask weights and what the optimiser remembers; update connections where that is due. After each step."""
        self.steps += 1
        for name in self._layers:
            self._apply(name)
        if self.schedule.due(self.steps):
            self.update()

    def update(self) -> None:
        """Change connections now. The base class keeps them."""

    def itop_rate(self) -> float:
        """Share of all weights that have ever been active (in-time over-parameterisation rate), in [0, 1]."""
        return sum(int(each.sum()) for each in self.ever.values()) / sum(each.numel() for each in self.ever.values())

    def sparsity(self) -> float:
        """Share of the weights of the sparse layers that is masked now, in [0, 1]."""
        masks = self.masks.values()
        return 1 - sum(int(each.sum()) for each in masks) / sum(each.numel() for each in masks)

    def remove(self) -> None:
        """Let gradients pass unmasked again; masked weights stay 0 until something moves them."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        """Everything, beside model and optimiser, that a training needs to go on bit for bit."""
        return {
            "steps": self.steps,
            "kind": type(self).__name__,
            "budgets": dict(self.budgets),
            "masks": {name: mask.clone() for name, mask in self.masks.items()},
            "ever": {name: mask.clone() for name, mask in self.ever.items()},
            "seen": {name: [each.clone() for each in seen] for name, seen in self._seen.items()},
            "generator": self._generator.get_state(),
            "log": [asdict(each) for each in self.log],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict` of an updater of the same model and settings.

        To build an updater draws new weights: load those of the model, and the optimiser, after it is built.

        Raises:
            InputError: it is of another kind of updater, of other layers or of another sparsity.
        """
        theirs, ours = _facts(state), _facts(self.state_dict())
        if theirs != ours:
            raise InputError(
                f"The state must be of the same updater, model, sparsity and distribution, {ours}, got {theirs}."
            )
        self.steps, self.log = state["steps"], [LayerUpdate(**each) for each in state["log"]]
        self._generator.set_state(state["generator"].cpu())
        for name in self._layers:
            self._set(name, state["masks"][name])
            self.ever[name].copy_(state["ever"][name])
            self._seen[name].clear()
            self._seen[name].extend(each.to(self.masks[name].device) for each in state["seen"][name])
            self._apply(name)

    def _first_mask(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Draw the mask of a layer: its weights anywhere."""
        if not self.budgets[name]:
            raise InputError(
                f"{name} of shape {shape} would keep no weight. Lower the sparsity, or name it in `dense`."
            )
        return random_mask(shape, self.budgets[name], self._generator)

    def _hook(self, name: str) -> Any:
        """Remember the gradient of the dense layer where an update will want it; pass on that of active weights."""

        def masked(gradient: torch.Tensor) -> torch.Tensor:
            wait = self.schedule.waits(self.steps + 1)
            wanted = self.needs_gradients and not self._is_dense(name)
            if wanted and wait is not None and wait < self._seen[name].maxlen:
                self._seen[name].append(gradient.detach().clone())
            return gradient * self._factors[name]

        return masked

    def _set(self, name: str, mask: torch.Tensor) -> None:
        """Take a new mask for a layer."""
        self.masks[name].copy_(mask)
        self._factors[name].copy_(mask)

    def _is_dense(self, name: str) -> bool:
        """Whether the budget of a layer is all its weights, so that there is nothing to drop or grow."""
        return self.budgets[name] == self.masks[name].numel()

    needs_gradients = False  # whether updates look at those of masked weights

    @torch.no_grad()
    def _apply(self, name: str) -> None:
        """Set masked weights, and what the optimiser remembers of them, to 0."""
        weight, factor = self._layers[name].weight, self._factors[name]  # 1 or 0: far faster to multiply by than bools
        weight.mul_(factor)
        for memory in self._memory(weight):
            memory.mul_(factor)

    def _memory(self, weight: torch.Tensor) -> list[torch.Tensor]:
        """What the optimiser remembers of each of the weights."""
        state = self._optimizer.state.get(weight, {}).values()
        return [each for each in state if isinstance(each, torch.Tensor) and each.shape == weight.shape]


class Growing(Updater, ABC):
    """Updater that drops and grows connections; `_grow` says which."""

    @torch.no_grad()
    def update(self) -> None:
        """Change the connections of every layer that is not dense.

        Raises:
            InputError: no backward pass has come since the last update.
        """
        fraction = self.schedule.fraction(self.steps)
        for name, layer in self._layers.items():
            if self._is_dense(name):
                continue
            old = self.masks[name].clone()
            count = whole_part(fraction * int(old.sum()))
            mask, least = self._grow(name, layer.weight, count)
            self._set(name, _from_first_rank(mask))
            self._settle(name, old, fraction, least)
            self._seen[name].clear()

    @abstractmethod
    def _grow(self, name: str, weight: torch.Tensor, count: int) -> tuple[torch.Tensor, int]:
        """Return the new mask of a layer of which `count` weights are to be dropped, and the `least` of the log."""

    def _gradient(self, name: str) -> torch.Tensor:
        """Mean gradient of the dense layer over the last passes, and over all processes."""
        if not self._seen[name]:
            raise InputError(f"{name} has seen no gradient since its last update: call backward() before step().")
        mean = torch.stack(list(self._seen[name])).mean(0)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(mean)
            mean /= distributed.get_world_size()
        return mean

    def _settle(self, name: str, old: torch.Tensor, fraction: float, least: int) -> None:
        """Mask what was dropped, and write down what was done; new connections are 0 already, as masked ones are."""
        new = self.masks[name]
        self._apply(name)
        self.ever[name] |= new
        before, after = fan_ins(old), fan_ins(new)
        self.log.append(
            LayerUpdate(
                step=self.steps,
                layer=name,
                fraction=fraction,
                dropped=int((old & ~new).sum()),
                grown=int((new & ~old).sum()),
                nonzero=int(after.sum()),
                active=int((after > 0).sum()),
                fan_in=int(after.max()),
                ablated=int(((before > 0) & (after == 0)).sum()),
                revived=int(((before == 0) & (after > 0)).sum()),
                least=least,
            )
        )


class SET(Growing):
    """Sparse evolutionary training: drop the smallest weights, grow at random."""

    def _grow(self, name: str, weight: torch.Tensor, count: int) -> tuple[torch.Tensor, int]:
        return set_mask(weight, self.masks[name], count, self._generator), 0


class RigL(Growing):
    """The rigged lottery: drop the smallest weights, grow where the gradient of the dense layer is largest."""

    needs_gradients = True

    def _grow(self, name: str, weight: torch.Tensor, count: int) -> tuple[torch.Tensor, int]:
        return rigl_mask(weight, self._gradient(name), self.masks[name], count), 0


class SRigL(Growing):
    """Structured RigL: one fan-in for all neurons of a layer, neurons with too few weights that matter are ablated.

    The last layer of the model is never ablated: its neurons are the classes.
    """

    needs_gradients = True

    def __init__(self, *args: Any, gamma: float = 0.3, **settings: Any):
        """Draw masks and first weights; arguments as of `Updater`.

        Args:
            *args: as of `Updater`.
            gamma: γ in [0, 1], share of the fan-in that must matter, or else the neuron is ablated; 0 ablates nothing.
            **settings: as of `Updater`.

        Raises:
            InputError: γ is out of range, or a neuron would have no input.
        """
        if not 0 <= gamma <= 1:
            raise InputError(f"gamma must be a number from 0 to 1, got {gamma!r}.")
        self.gamma = float(gamma)
        super().__init__(*args, **settings)

    def _first_mask(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Draw the mask of a layer: as many inputs for each neuron."""
        fan_in = self.budgets[name] // shape[0]
        if not fan_in:
            raise InputError(
                f"{name} may keep {self.budgets[name]} weights, less than one for each of its {shape[0]} neurons. "
                "Lower the sparsity, or name it in `dense`."
            )
        return constant_fan_in_mask(shape, fan_in, self._generator)

    def _grow(self, name: str, weight: torch.Tensor, count: int) -> tuple[torch.Tensor, int]:
        gamma = 0.0 if name == self._last else self.gamma
        options = {"budget": self.budgets[name], "count": count, "gamma": gamma}
        grown = srigl_mask(weight, self._gradient(name), self.masks[name], **options)
        return grown.mask, grown.least


def _facts(state: dict[str, Any]) -> dict[str, Any]:
    """What two updaters must have in common for one to go on where the other was."""
    shapes = {name: tuple(mask.shape) for name, mask in state["masks"].items()}
    return {"kind": state["kind"], "budgets": state["budgets"], "shapes": shapes}


def _from_first_rank(mask: torch.Tensor) -> torch.Tensor:
    """Take the mask of rank 0, so that ties and roundings cannot part the processes."""
    if distributed.is_available() and distributed.is_initialized():
        whole = mask.to(torch.uint8)
        distributed.broadcast(whole, 0)
        return whole.bool()
    return mask
