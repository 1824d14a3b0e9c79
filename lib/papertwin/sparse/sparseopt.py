"""SparseOpt, HAM and gradients of norm 1, hung on any optimiser of torch.

    >>> import torch
    >>> from papertwin.sparse import DropSchedule, RigL
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 4))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> sparse = RigL(model, optimizer, DropSchedule(steps=100, every=10), sparsity=0.5)
    >>> corrected = SparseOpt(optimizer, sparse)  # from now on optimizer.step() corrects

In whatever order they are built, HAM sees the gradients that SparseOpt has not touched, and its own step comes last;
`UnitNorm`, built after SparseOpt, scales what that has corrected. All leave the gradients after a step as they were
before it.

Source: as in `papertwin.sparse.skew`. Ours: an optimiser that divides by the size of gradients (Adam and its kin)
cancels the factors, so there it is the update that is corrected.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from papertwin.errors import InputError
from papertwin.sparse.skew import Mean, corrections
from papertwin.sparse.updaters import Updater

Where = Literal["gradient", "update"]
Growth = Literal["raw", "corrected"]
WHERES = (None, "gradient", "update")
GROWTHS = ("raw", "corrected")
_NAMES = "Adam AdamW NAdam RAdam Adamax Adafactor Adagrad Adadelta RMSprop Rprop Muon"
ADAPTIVE = tuple(getattr(torch.optim, name) for name in _NAMES.split())
DECOUPLED = (torch.optim.AdamW, torch.optim.Adafactor, torch.optim.Muon)  # others say so in their groups


class _Hung:
    """What acts on the weights of sparse layers around each step of an optimiser, until `remove`."""

    def __init__(self, optimizer: torch.optim.Optimizer, sparse: Updater):
        self._optimizer, self._sparse = optimizer, sparse
        self._hooks: list[RemovableHandle] = []

    def _hang(self, first: Literal["before", "after"]) -> None:
        """Begin; among those that hang there be the first before a step, or after it."""
        before = self._optimizer.register_step_pre_hook(self._around)
        after = self._optimizer.register_step_post_hook(lambda *_: self._after())
        front = before if first == "before" else after
        front.hooks_dict_ref().move_to_end(front.id, last=False)
        self._hooks = [before, after]

    def remove(self) -> None:
        """Leave the optimiser as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _around(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Act before a step, and on its gradients; where a closure makes those, each time it has."""
        self._before()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._on_gradients()
            return None

        def then() -> Any:
            loss = closure()
            self._on_gradients()
            return loss

        return (args[0], then), {name: value for name, value in kwargs.items() if name != "closure"}

    def _learnt(self) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
        """Layer, weights and group of the optimiser, for the layers whose weights it has."""
        names = {id(weight): name for name, weight in self._sparse.weights().items()}
        for group in self._optimizer.param_groups:
            yield from ((names[id(each)], each, group) for each in group["params"] if id(each) in names)

    def _before(self) -> None:
        """Before the step, and before its closure."""

    def _on_gradients(self) -> None:
        """Once the gradients of the step are there."""

    def _after(self) -> None:
        """After the step."""


class SparseOpt(_Hung):
    """Corrects what each neuron of the sparse layers learns by, until `remove`.

    Attributes:
        where: gradient or update, as it was chosen.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        sparse: Updater,
        *,
        mean: Mean = "all",
        where: Where | None = None,
        growth: Growth = "raw",
    ):
        """Hang the correction on an optimiser.

        Args:
            optimizer: of the model's parameters.
            sparse: masks of the model.
            mean: of the fan-ins, over all neurons of a layer or the active ones.
            where: `gradient` multiplies what the optimiser gets, before it adds weight decay and momentum; `update`
                what it does, and leaves decoupled weight decay as it is; None takes `update` for adaptive optimisers,
                `gradient` for others.
            growth: whether updates of the connections look at raw or corrected gradients.

        Raises:
            InputError: an unknown option, or weight decay that cannot be told from the update.
        """
        if where not in WHERES or growth not in GROWTHS:
            known = ", ".join(map(str, WHERES))
            raise InputError(f"where must be one of {known}, growth raw or corrected, got {where!r} and {growth!r}.")
        super().__init__(optimizer, sparse)
        self.where: Where = where or ("update" if isinstance(optimizer, ADAPTIVE) else "gradient")
        self._mean: Mean = mean
        self._factors: dict[str, torch.Tensor] = {}
        self._known = -1
        self._raw: dict[str, torch.Tensor] = {}
        self._decayed: dict[str, torch.Tensor] = {}
        self.factors()  # refuses what is no mean
        if self.where == "update":
            for _, _, group in self._learnt():
                self._decay(group)
        self._hang(first="after")
        if growth == "corrected":
            sparse.score = self._score

    def factors(self) -> dict[str, torch.Tensor]:
        """Layer → c of its neurons, shaped (out, 1, …) like its weights; made anew when the masks have changed."""
        if self._known != self._sparse.changes:
            self._known = self._sparse.changes
            for name, weight in self._sparse.weights().items():
                factor = corrections(self._sparse.masks[name], self._mean).to(weight.dtype)
                self._factors[name] = factor.view(-1, *[1] * (weight.ndim - 1))
        return self._factors

    def remove(self) -> None:
        """Leave the optimiser, and the updates of the connections, as they were."""
        super().remove()
        if self._sparse.score == self._score:
            self._sparse.score = None

    def _score(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient by which weights grow, corrected with the factors of the masks so far."""
        return gradient * self.factors()[name]

    @torch.no_grad()
    def _before(self) -> None:
        """Keep the weights, decayed, from which the update will be measured."""
        if self.where == "update":
            self._decayed = {n: weight * (1 - self._decay(group)) for n, weight, group in self._learnt()}

    @torch.no_grad()
    def _on_gradients(self) -> None:
        """Let the optimiser see corrected gradients; the others come back after the step."""
        if self.where == "gradient":
            for name, weight, _ in self._learnt():
                if weight.grad is not None:
                    self._raw[name] = weight.grad
                    weight.grad = weight.grad * self.factors()[name]

    @torch.no_grad()
    def _after(self) -> None:
        """Bring the gradients back, or correct what the optimiser did."""
        for name, weight, _ in self._learnt():
            if name in self._raw:
                weight.grad = self._raw.pop(name)
            elif name in self._decayed and weight.grad is not None:  # without one nothing was done, not even decay
                weight.copy_(self._decayed[name].lerp(weight, self.factors()[name]))  # exact where the factor is 1
        self._decayed = {}

    def _decay(self, group: dict[str, Any]) -> float:
        """Share of a weight that decoupled decay takes in one step; other decay would be corrected with the update."""
        decay = group.get("weight_decay", 0)
        if decay and not group.get("decoupled_weight_decay", isinstance(self._optimizer, DECOUPLED)):
            raise InputError(
                f"where='update' needs decoupled weight decay (as of AdamW) or none, got "
                f"{type(self._optimizer).__name__} with weight_decay={decay}. Take AdamW, use where='gradient', or set "
                "the decay to 0."
            )
        return float(group["lr"] * decay)


class HAM(_Hung):
    """Hyperbolic aware minimisation: after each step w ← w · exp(lr · (−α sign(w) g − β)), g the gradient of the step.

    Weights of the sparse layers only; ours: the raw gradient, as it is without SparseOpt.

    Attributes:
        alpha: α.
        beta: β.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, sparse: Updater, *, alpha: float = 200.0, beta: float = 1e-3):
        """Hang the step on an optimiser.

        Args:
            optimizer: of the model's parameters; it gives the rate lr.
            sparse: masks of the model.
            alpha: α, strength of the pull of the gradient, which here goes with the size of the weight.
            beta: β, a decay of the weight.

        Raises:
            InputError: α or β is negative or not finite.
        """
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be a finite number of at least 0, got {value!r}.")
        self.alpha, self.beta = float(alpha), float(beta)
        self._raw: dict[str, torch.Tensor] = {}
        super().__init__(optimizer, sparse)
        self._hang(first="before")

    @torch.no_grad()
    def _on_gradients(self) -> None:
        """Keep the gradients: SparseOpt replaces them, and some optimisers write into them."""
        self._raw = {name: weight.grad.clone() for name, weight, _ in self._learnt() if weight.grad is not None}

    @torch.no_grad()
    def _after(self) -> None:
        """Multiply the weights."""
        for name, weight, group in self._learnt():
            if name in self._raw:
                push = -self.alpha * weight.sign() * self._raw[name] - self.beta
                weight.mul_((group["lr"] * push).exp())
        self._raw = {}


class UnitNorm(_Hung):
    """Gives the gradient of each sparse layer norm 1 before the optimiser sees it: what is left is its direction.

    Where directions are to be compared. Built after SparseOpt, since gradients are scaled in the order of building;
    with `where="update"` SparseOpt corrects what comes of the scaled gradient. A gradient of 0 stays.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, sparse: Updater):
        """Hang the scaling on an optimiser.

        Args:
            optimizer: of the model's parameters.
            sparse: masks of the model.
        """
        super().__init__(optimizer, sparse)
        self._raw: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._hang(first="after")

    @torch.no_grad()
    def _on_gradients(self) -> None:
        """Let the optimiser see scaled gradients."""
        for name, weight, _ in self._learnt():
            if weight.grad is not None:
                norm = weight.grad.norm()
                scaled = weight.grad / torch.where(norm > 0, norm, 1)
                self._raw[name] = weight.grad, scaled
                weight.grad = scaled

    @torch.no_grad()
    def _after(self) -> None:
        """Bring the gradients back, where nobody else has."""
        for name, weight, _ in self._learnt():
            raw, scaled = self._raw.pop(name, (None, None))
            if scaled is not None and weight.grad is scaled:
                weight.grad = raw
