"""A condensed layer is the masked dense layer: outputs, gradients, training, copies, states; errors are clear."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.condensed import CondensedLinear
from papertwin.sparse.masks import constant_fan_in_mask


def pair(out=40, width=70, fan_in=9, ablated=5, *, bias=True, dtype=torch.float32, seed=0, kernel=None):
    """A dense layer with masked weights, its mask, and the condensed layer of it."""
    generator = torch.Generator().manual_seed(seed)
    mask = constant_fan_in_mask((out, width), fan_in, generator)
    mask[torch.randperm(out, generator=generator)[:ablated]] = False
    dense = nn.Linear(width, out, bias=bias, dtype=dtype)
    with torch.no_grad():
        dense.weight.copy_(torch.randn(out, width, generator=generator, dtype=dtype) * mask)
    return dense, mask, CondensedLinear.from_linear(dense, mask, kernel=kernel)


def inputs(*shape, dtype=torch.float32, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_close(found, wanted):
    """Equal within 1e-5 of the largest value (1e-12 in float64)."""
    scale = max(1.0, float(wanted.detach().abs().max())) if wanted.numel() else 1.0
    limit = 1e-12 if wanted.dtype == torch.float64 else 1e-5
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=0, atol=limit * scale)


def assert_same_gradients(dense, layer, x):
    """Forward and backward of both layers agree."""
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    given = inputs(*x.shape[:-1], dense.out_features, dtype=x.dtype, seed=2)
    found, wanted = layer(ours), dense(theirs)
    assert_close(found, wanted)
    layer.zero_grad()
    dense.zero_grad()
    found.backward(given)
    wanted.backward(given)
    assert_close(ours.grad, theirs.grad)
    assert_close(layer.weight.grad, dense.weight.grad[layer.rows[:, None], layer.index.long()])
    if dense.bias is not None:
        assert_close(layer.bias.grad, dense.bias.grad)


# ---- the same as the masked dense layer ------------------------------------------------------------------------------


@given(
    out=st.integers(1, 50),
    width=st.integers(1, 80),
    share=st.floats(0, 1),
    ablated=st.floats(0, 1),
    batch=st.integers(1, 40),
    bias=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=60)
def test_outputs_and_gradients_of_any_shape(out, width, share, ablated, batch, bias, seed):
    fan_in = max(1, round(share * width))
    dense, _, layer = pair(out, width, fan_in, round(ablated * out), bias=bias, seed=seed)
    assert_same_gradients(dense, layer, inputs(batch, width, seed=seed))


@pytest.mark.parametrize("batch", [1, 8, 9, 65, 300])
@pytest.mark.parametrize("fan_in", [1, 100, 290, 300])
def test_outputs_and_gradients_of_a_larger_layer(batch, fan_in):
    dense, _, layer = pair(90, 300, fan_in, 20)
    assert_same_gradients(dense, layer, inputs(batch, 300))


@pytest.mark.parametrize("ablated", [0, 3, 7])
def test_gradients_by_finite_differences(ablated):
    _, _, layer = pair(7, 6, 3, ablated, dtype=torch.float64)
    x = inputs(4, 6, dtype=torch.float64).requires_grad_()

    def output(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(output, (x, layer.weight, layer.bias))


def test_float64_is_exact_to_float64_and_in_chunks(monkeypatch):
    dense, _, layer = pair(dtype=torch.float64)
    monkeypatch.setattr("papertwin.sparse.condensed_torch.CHUNK", 100)
    assert_same_gradients(dense, layer, inputs(12, 70, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_type(dtype):
    dense, _, layer = pair()
    found = layer.to(dtype)(inputs(3, 70).to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), dense(inputs(3, 70)), rtol=0.05, atol=0.1)
    assert layer.index.dtype == torch.int32, "places keep their type"


@pytest.mark.parametrize("shape", [(70,), (0, 70), (2, 0, 70), (3, 4, 70), (2, 1, 5, 70)])
def test_leading_dimensions(shape):
    dense, _, layer = pair()
    assert_close(layer(inputs(*shape)), dense(inputs(*shape)))


def test_an_empty_batch_has_gradients_of_zero():
    _, _, layer = pair()
    x = torch.zeros(0, 70, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == (0, 70)
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("batch", [1, 20])
def test_inputs_that_are_not_contiguous(batch):
    dense, _, layer = pair()
    for x in (inputs(70, batch).t(), inputs(batch, 140)[:, ::2], inputs(batch, 71)[:, 1:], inputs(1, 70).expand(5, 70)):
        assert_close(layer(x), dense(x))
        assert_same_gradients(dense, layer, x)


def test_gradients_that_are_not_contiguous():
    dense, _, layer = pair(ablated=0)
    for network in (dense, layer):
        network(inputs(20, 70)).sum().backward()  # an expanded gradient
    assert_close(layer.weight.grad, dense.weight.grad[layer.rows[:, None], layer.index.long()])


@pytest.mark.parametrize("bias", [True, False])
def test_all_neurons_ablated(bias):
    dense, _, layer = pair(ablated=40, bias=bias)
    assert layer.weight.shape == (0, 0)
    assert_same_gradients(dense, layer, inputs(3, 70))
    assert torch.equal(layer(inputs(2, 70)), dense.bias.expand(2, 40) if bias else torch.zeros(2, 40))


def test_an_active_weight_of_zero_stays():
    dense, mask, _ = pair(ablated=0)
    with torch.no_grad():
        dense.weight.zero_()
    layer = CondensedLinear.from_linear(dense, mask)
    assert layer.weight.shape == (40, 9)
    assert torch.equal(layer.mask(), mask)


def test_only_what_asks_for_gradients_gets_them():
    dense, mask, _ = pair()
    dense.weight.requires_grad_(False)
    dense.eval()
    layer = CondensedLinear.from_linear(dense, mask)
    assert not layer.weight.requires_grad
    assert layer.bias.requires_grad
    assert not layer.training
    layer(inputs(3, 70)).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None
    layer.requires_grad_(False)
    assert not layer(inputs(3, 70)).requires_grad
    x = inputs(3, 70).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None


# ---- values follow the weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.AdamW])
def test_training_is_that_of_the_masked_layer(batch, optimiser):
    dense, mask, layer = pair()
    ours, theirs = (optimiser(network.parameters(), lr=0.1) for network in (layer, dense))
    dense.weight.register_hook(lambda gradient: gradient * mask)
    for step in range(4):
        x = inputs(batch, 70, seed=step)
        for network, optimiser_of in ((layer, ours), (dense, theirs)):
            optimiser_of.zero_grad()
            network(x).square().mean().backward()
            optimiser_of.step()
        with torch.no_grad():
            dense.weight.mul_(mask)
            torch.testing.assert_close(layer(x), dense(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", ["lookup", "gather", "lanes", "dense"])
def test_every_change_of_the_weights_is_seen(kernel):
    skip_without(kernel)
    _, _, layer = pair(kernel=kernel)
    x = inputs(3, 70)

    def assert_fresh():
        with torch.no_grad():
            assert_close(layer(x), layer.to_dense()(x))

    assert_fresh()
    with torch.no_grad():
        layer.weight.add_(1)
    assert_fresh()
    layer.weight = nn.Parameter(torch.ones_like(layer.weight))
    assert_fresh()
    layer.load_state_dict(pair(seed=3)[2].state_dict())
    assert_fresh()
    layer.load_state_dict(pair(seed=4)[2].state_dict(), assign=True)
    assert_fresh()
    layer.to(torch.float64).to(torch.float32)
    with torch.no_grad():
        layer.bias.add_(1)
    assert_fresh()
    layer.weight.data.mul_(2)  # leaves no trace
    layer.refresh()
    assert_fresh()
    layer.weight.data.mul_(2)
    layer.eval()
    assert_fresh()
    with torch.inference_mode():
        layer.weight.mul_(2)
        assert_close(layer(x), layer.to_dense()(x))


def skip_without(kernel):
    from papertwin.sparse.condensed_layouts import has_lookups

    if kernel == "lookup" and not has_lookups():
        pytest.skip("no AVX-512F here")


def test_a_weight_changed_between_forward_and_backward_is_an_error():
    _, _, layer = pair()
    y = layer(inputs(3, 70)).sum()
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


# ---- copies and states -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_independent(copied):
    _, _, layer = pair()
    x = inputs(2, 70)
    before = layer(x).detach()
    other = copied(layer)
    assert_close(other(x), before)
    with torch.no_grad():
        other.weight.zero_()
    assert_close(layer(x), before)
    assert_close(other(x), other.bias.expand(2, -1))


def test_state_goes_to_a_layer_of_the_same_shape():
    _, _, layer = pair(seed=1)
    _, _, other = pair(seed=2)
    other(inputs(2, 70))
    other.load_state_dict(layer.state_dict())
    assert list(layer.state_dict()) == ["weight", "bias", "index", "rows"]
    assert_close(other(inputs(2, 70)), layer(inputs(2, 70)))
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        other.load_state_dict(pair(fan_in=8)[2].state_dict())


def test_there_and_back():
    dense, mask, layer = pair()
    back = layer.eval().to_dense()
    assert torch.equal(back.weight, dense.weight)
    assert torch.equal(back.bias, dense.bias)
    assert not back.training
    assert torch.equal(layer.mask(), mask)
    back.weight.data.add_(1)
    assert torch.equal(layer.to_dense().weight, dense.weight), "a copy"
    assert "active=35, fan_in=9" in repr(layer)


def test_a_meta_layer_has_a_shape():
    layer = pair()[2].to("meta")
    assert layer(torch.empty(2, 70, device="meta")).shape == (2, 40)


def test_traced_by_the_compiler():
    dense, _, layer = pair()
    traced = torch.compile(layer, backend="eager")
    with torch.no_grad():
        assert_close(traced(inputs(3, 70)), dense(inputs(3, 70)))
    traced(inputs(3, 70)).sum().backward()
    assert layer.weight.grad is not None


def test_autocast_computes_in_the_type_of_the_weights():
    dense, _, layer = pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(inputs(3, 70).bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, dense(inputs(3, 70)), rtol=0.05, atol=0.1)


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_another_number_of_weights_is_an_error():
    dense, mask, _ = pair(ablated=0)
    mask[3, mask[3].nonzero()[0]] = False
    with pytest.raises(InputError, match=r"same number of weights, got 8 to 9\. Train with SRigL"):
        CondensedLinear.from_linear(dense, mask)


@pytest.mark.parametrize("mask", [torch.ones(40, 69, dtype=torch.bool), torch.ones(40, 70)])
def test_a_mask_of_another_shape_or_type_is_an_error(mask):
    with pytest.raises(InputError, match=r"mask must be bool of the shape \(40, 70\)"):
        CondensedLinear.from_linear(pair()[0], mask)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index": torch.zeros(2, 3)}, r"weight and index must be \(active, k\)"),
        ({"rows": torch.tensor([0])}, r"rows \(active,\)"),
        ({"index": torch.tensor([[0, 9], [1, 2]])}, r"index must be whole numbers in \[0, 4\)"),
        ({"index": torch.tensor([[0.0, 1], [1, 2]])}, "index must be whole numbers"),
        ({"rows": torch.tensor([0, 3])}, r"rows must be whole numbers in \[0, 3\)"),
        ({"rows": torch.tensor([1, 0])}, "rows must ascend"),
        ({"index": torch.tensor([[1, 1], [1, 2]])}, "each input once"),
        ({"weight": torch.zeros(2, 0), "index": torch.zeros(2, 0).long()}, "must have 1 to 4 weights, got 0"),
        ({"bias": torch.zeros(2)}, r"bias must have the shape \(3,\)"),
    ],
)
def test_parts_that_do_not_fit_are_an_error(changed, message):
    parts = {"weight": torch.zeros(2, 2), "index": torch.tensor([[0, 1], [1, 2]]), "rows": torch.tensor([0, 1])}
    with pytest.raises(InputError, match=message):
        CondensedLinear(4, 3, **parts | changed)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 69), r"shape \(…, 70\), got \(2, 69\)"),
        (torch.tensor(1.0), "shape"),
        (torch.zeros(2, 70).double(), "must be torch.float32 on cpu as the weights, got torch.float64"),
        (torch.zeros(2, 70, device="meta"), "got torch.float32 on meta"),
    ],
)
def test_inputs_that_do_not_fit_are_an_error(x, message):
    with pytest.raises(InputError, match=message):
        pair()[2](x)


@pytest.mark.parametrize("name", ["index", "rows"])
def test_places_that_do_not_exist_are_not_read(name):
    _, _, layer = pair()
    layer(inputs(2, 70))
    state = layer.state_dict()
    layer.load_state_dict(state | {name: state[name] + 1000})
    with pytest.raises(InputError, match=rf"{name} must lie in .* Was a state of another layer loaded"):
        layer(inputs(2, 70))
