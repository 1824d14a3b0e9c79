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
first steps there, since they count the steps of the whole tensor. With torch.distributed each process of the `group`
makes the same masks, given the same seed: gradients are averaged, new masks come from rank 0.

Sources as in `papertwin.sparse.growing`. An update follows the optimiser's step; gradients are averaged over the last
`passes` backward passes. Ours: what an interrupted training needs to go on bit for bit is in `state_dict`.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from papertwin.checks import SEEDS, is_whole
from papertwin.errors import DivergenceError, InputError
from papertwin.sparse.densities import Distribution, budgets, whole_part
from papertwin.sparse.growing import rigl_mask, set_mask, srigl_mask
from papertwin.sparse.initialising import First, sparse_init_
from papertwin.sparse.masks import (
    bits_of,
    constant_fan_in_mask,
    last_layer,
    let_through,
    random_mask,
    remembered,
    sparse_layers,
)
from papertwin.sparse.processes import Group, check_group, everywhere, from_first, mean_
from papertwin.sparse.records import LayerUpdate, layer_update
from papertwin.sparse.schedule import DropSchedule

Gradients = dict[str, torch.Tensor]  # layer → what weights grow by, of the shape of its weights
_MASKED = WeakTensorKeyDictionary()  # weights that an updater masks, until it is removed


class Updater:
    """Masks of a model in training; this one never changes them (static sparse training).

    Attributes:
        budgets: layer → number of weights that it may have.
        masks: layer → bool tensor of the shape of its weights.
        log: what was done, an entry a layer and update.
        steps: of the optimiser so far.
        last: name of the model's last linear layer or convolution, whether it is sparse or not.
        changes: how often masks were set since they were drawn; whoever keeps something made of them looks here.
        score: None, or what makes of (layer, mean gradient) that by which weights grow, of the same shape.
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
        group: Group = None,
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
            group: processes that train the same model, see `papertwin.sparse.processes`: None is all that there are,
                False this one alone.

        Raises:
            InputError: an argument is out of range, a layer would keep nothing, does not learn, or is masked by
                another updater; the model is as it was.
        """
        self._layers = sparse_layers(model, dense)
        self.last = last_layer(model)
        if not is_whole(passes, 1) or not is_whole(seed, 0, SEEDS - 1):
            raise InputError(f"passes must be a whole number above 0 and seed one from 0, got {passes!r} and {seed!r}.")
        check_group(group)
        shapes = {name: tuple(layer.weight.shape) for name, layer in self._layers.items()}
        self.budgets = budgets(shapes, sparsity, distribution)
        self.schedule, self.steps, self.log, self._optimizer, self._group = schedule, 0, [], optimizer, group
        self.changes = 0
        self.score: Callable[[str, torch.Tensor], torch.Tensor] | None = None
        for name, layer in self._layers.items():
            self._check_budget(name, shapes[name])
            _check_weight(name, layer.weight)
        self._generator = torch.Generator().manual_seed(int(seed))
        self.masks: dict[str, torch.Tensor] = {}
        for name, layer in self._layers.items():
            mask = self._first_mask(name, shapes[name])
            self.masks[name] = torch.empty_like(layer.weight, dtype=torch.bool).copy_(mask)
            sparse_init_(layer.weight, self.masks[name], first, self._generator)
        self._factors = {name: self.masks[name].to(layer.weight.dtype) for name, layer in self._layers.items()}
        self._bits = {name: bits_of(self.masks[name], layer.weight.dtype) for name, layer in self._layers.items()}
        self.ever = {name: mask.clone() for name, mask in self.masks.items()}
        self._seen: dict[str, deque[torch.Tensor]] = {name: deque(maxlen=int(passes)) for name in self._layers}
        self._hooks = [layer.weight.register_hook(self._hook(name)) for name, layer in self._layers.items()]
        _MASKED.update((layer.weight, True) for layer in self._layers.values())

    def step(self) -> None:
        """Mask weights and what the optimiser remembers; update connections where that is due. After each step."""
        self.steps += 1
        for name in self._layers:
            self._apply(name)
        if self.schedule.due(self.steps):
            self._update()

    def _update(self) -> None:
        """Change connections now, where the schedule has kept gradients for it. The base class keeps them."""

    def itop_rate(self) -> float:
        """Share of all weights that have ever been active (in-time over-parameterisation rate), in [0, 1]."""
        return sum(int(each.sum()) for each in self.ever.values()) / sum(each.numel() for each in self.ever.values())

    def sparsity(self) -> float:
        """Share of the weights of the sparse layers that is masked now, in [0, 1]."""
        masks = self.masks.values()
        return 1 - sum(int(each.sum()) for each in masks) / sum(each.numel() for each in masks)

    def weights(self) -> dict[str, nn.Parameter]:
        """Layer → its weights."""
        return {name: layer.weight for name, layer in self._layers.items()}

    def remove(self) -> None:
        """Let gradients pass unmasked again; masked weights stay 0 until something moves them."""
        for hook, weight in zip(self._hooks, self.weights().values()):
            hook.remove()
            _MASKED.pop(weight, None)
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        """Everything, beside model and optimiser, that a training needs to go on bit for bit."""
        return {
            "steps": self.steps,
            "settings": self._settings(),
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
            InputError: it is of an updater of another kind, model, sparsity, schedule, γ or number of passes.
        """
        ours, theirs = self._settings(), dict(state.get("settings", {}))
        names = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
        if names:
            words = [f"{name} is {ours.get(name)!r} here, got {theirs.get(name)!r}" for name in names]
            raise InputError(f"The state must be of an updater of the same settings: {'; '.join(words)}.")
        self.steps, self.log = state["steps"], [LayerUpdate(**each) for each in state["log"]]
        self._generator.set_state(state["generator"].cpu())
        for name in self._layers:
            self._set(name, state["masks"][name])
            self.ever[name].copy_(state["ever"][name])
            self._seen[name].clear()
            self._seen[name].extend(each.to(self.masks[name].device) for each in state["seen"][name])
            self._apply(name)

    def _settings(self) -> dict[str, Any]:
        """What two updaters must have in common for one to go on where the other was; None is as good as absent."""
        found = {"kind": type(self).__name__, "passes": next(iter(self._seen.values())).maxlen}
        found |= {f"{name} of the schedule": value for name, value in asdict(self.schedule).items()}
        found |= {f"shape of {name!r}": tuple(mask.shape) for name, mask in self.masks.items()}
        return found | {f"weights that {name!r} keeps": budget for name, budget in self.budgets.items()}

    def _check_budget(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse a layer that would keep too little."""
        if not self.budgets[name]:
            raise InputError(
                f"{name} of shape {shape} would keep no weight. Lower the sparsity, or name it in `dense`."
            )

    def _first_mask(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Draw the mask of a layer: its weights anywhere."""
        return random_mask(shape, self.budgets[name], self._generator)

    def _hook(self, name: str) -> Any:
        """Remember the gradient of the dense layer where an update will want it; pass on that of active weights."""

        def masked(gradient: torch.Tensor) -> torch.Tensor:
            wait = self.schedule.waits(self.steps + 1)
            wanted = self.needs_gradients and not self._is_dense(name)
            if wanted and wait is not None and wait < self._seen[name].maxlen:
                self._seen[name].append(gradient.detach().clone())
            return let_through(gradient, self._bits[name])

        return masked

    def _set(self, name: str, mask: torch.Tensor) -> None:
        """Take a new mask for a layer."""
        self.changes += 1
        self.masks[name].copy_(mask)
        self._factors[name].copy_(mask)
        self._bits[name].copy_(mask).neg_()

    def _is_dense(self, name: str) -> bool:
        """Whether the budget of a layer is all its weights, so that there is nothing to drop or grow."""
        return self.budgets[name] == self.masks[name].numel()

    needs_gradients = False  # whether updates look at those of masked weights

    @torch.no_grad()
    def _apply(self, name: str) -> None:
        """Set masked weights, and what the optimiser remembers of them, to 0."""
        weight, factor = self._layers[name].weight, self._factors[name]  # 1 or 0: far faster to multiply by than bools
        weight.mul_(factor)
        for memory in remembered(self._optimizer, weight):
            memory.mul_(factor)


class Growing(Updater, ABC):
    """Updater that drops and grows connections; `_grow` says which."""

    @torch.no_grad()
    def _update(self) -> None:
        """Change the connections of every layer that is not dense, or of none.

        Raises:
            InputError: no backward pass has come since the last update.
            DivergenceError: a mean gradient is not finite.
        """
        fraction = self.schedule.fraction(self.steps)
        gradients = self._gradients() if self.needs_gradients else {}
        for name, layer in self._layers.items():
            if self._is_dense(name):
                continue
            old = self.masks[name].clone()
            count = whole_part(fraction * int(old.sum()))
            mask, least = self._grow(name, layer.weight, gradients, count)
            self._set(name, from_first(mask, self._group))
            self._settle(name, old, fraction, least)
            self._seen[name].clear()

    @abstractmethod
    def _grow(self, name: str, weight: torch.Tensor, gradients: Gradients, count: int) -> tuple[torch.Tensor, int]:
        """Return the new mask of a layer of which `count` weights are to be dropped, and the `least` of the log."""

    def _gradients(self) -> Gradients:
        """Mean gradients of the dense layers over the last passes, and over all processes; they raise together."""
        names = [name for name in self._layers if not self._is_dense(name)]
        seen = everywhere(
            [bool(self._seen[name]) for name in names], self._group, next(iter(self.masks.values())).device
        )
        if missing := [name for name, came in zip(names, seen) if not came]:
            raise InputError(
                f"Layers that have seen no gradient since their last update: {', '.join(missing)}. Call backward() "
                "before step(), in every process, with a loss that depends on all sparse layers."
            )
        means = {name: mean_(torch.stack(list(self._seen[name])).mean(0), self._group) for name in names}
        if broken := [name for name, mean in means.items() if not mean.isfinite().all()]:
            raise DivergenceError(
                f"Mean gradients at the update after step {self.steps} are not finite in the layers "
                f"{', '.join(broken)}, so they cannot say where weights should grow. Lower the learning rate or check "
                "inputs and loss; with a GradScaler, call step() only where the optimiser's step was not skipped."
            )
        return means if self.score is None else {name: self.score(name, mean) for name, mean in means.items()}

    def _settle(self, name: str, old: torch.Tensor, fraction: float, least: int) -> None:
        """Mask what was dropped, and write down what was done; new connections are 0 already, as masked ones are."""
        new = self.masks[name]
        self._apply(name)
        self.ever[name] |= new
        self.log.append(layer_update(self.steps, name, fraction, old, new, least))


class SET(Growing):
    """Sparse evolutionary training: drop the smallest weights, grow at random."""

    def _grow(self, name: str, weight: torch.Tensor, gradients: Gradients, count: int) -> tuple[torch.Tensor, int]:
        return set_mask(weight, self.masks[name], count, self._generator), 0


class RigL(Growing):
    """The rigged lottery: drop the smallest weights, grow where the gradient of the dense layer is largest."""

    needs_gradients = True

    def _grow(self, name: str, weight: torch.Tensor, gradients: Gradients, count: int) -> tuple[torch.Tensor, int]:
        return rigl_mask(weight, gradients[name], self.masks[name], count), 0


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

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"gamma": self.gamma}

    def _check_budget(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse a layer that has less than a weight for each neuron."""
        if self.budgets[name] < shape[0]:
            raise InputError(
                f"Layer {name!r} may keep {self.budgets[name]} weights, fewer than its {shape[0]} neurons. "
                "Lower the sparsity, name the layer in `dense`, or widen those before and after it."
            )

    def _first_mask(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Draw the mask of a layer: as many inputs for each neuron."""
        return constant_fan_in_mask(shape, self.budgets[name] // shape[0], self._generator)

    def _grow(self, name: str, weight: torch.Tensor, gradients: Gradients, count: int) -> tuple[torch.Tensor, int]:
        gamma = 0.0 if name == self.last else self.gamma
        options = {"budget": self.budgets[name], "count": count, "gamma": gamma}
        grown = srigl_mask(weight, gradients[name], self.masks[name], **options)
        return grown.mask, grown.least


def _check_weight(name: str, weight: torch.Tensor) -> None:
    """Refuse weights that do not learn, or that another updater masks."""
    if not isinstance(weight, nn.Parameter) or not weight.requires_grad:
        raise InputError(
            f"The weights of {name!r} must be parameters that learn: call requires_grad_() on them, take away what "
            "computes them, or name the layer in `dense`."
        )
    if weight in _MASKED:
        raise InputError(f"Another updater masks {name!r}: call remove() of that one first, or take another model.")
