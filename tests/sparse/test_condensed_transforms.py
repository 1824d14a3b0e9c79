"""A condensed layer under torch's transforms is the masked dense layer: vmap, gradients of functions, traces."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jvp, stack_module_state, vmap

from papertwin.errors import InputError
from papertwin.sparse.condensed import CondensedLinear
from papertwin.sparse.masks import constant_fan_in_mask


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(seed=0, *, bias=True, ablated=5):
    """A dense layer (70 → 40) with masked weights, its mask, and the condensed layer of it."""
    generator = torch.Generator().manual_seed(seed)
    mask = constant_fan_in_mask((40, 70), 9, generator)
    mask[torch.randperm(40, generator=generator)[:ablated]] = False
    dense = nn.Linear(70, 40, bias=bias)
    with torch.no_grad():
        for values in dense.parameters():
            values.copy_(torch.randn(values.shape, generator=generator))
        dense.weight.mul_(mask)
    return dense, mask, CondensedLinear.from_linear(dense, mask)


def assert_close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ablated", [0, 5, 40])
@pytest.mark.parametrize("shape", [(6, 70), (6, 3, 70), (6, 2, 3, 70)])
def test_vmap_over_inputs(shape, ablated, bias):
    dense, _, layer = pair(bias=bias, ablated=ablated)
    assert_close(vmap(layer)(normal(*shape)), dense(normal(*shape)))


def test_vmap_over_layers(monkeypatch):
    monkeypatch.setattr("papertwin.sparse.condensed_torch.CHUNK", 100)
    pairs = [pair(seed) for seed in range(3)]
    parameters, buffers = stack_module_state([layer for *_, layer in pairs])
    base, x = pairs[0][2], normal(4, 70)
    found = vmap(lambda p, b: functional_call(base, (p, b), (x,)))(parameters, buffers)
    assert_close(found, torch.stack([dense(x) for dense, *_ in pairs]))


def loss(network):
    return lambda parameters, x: functional_call(network, parameters, (x,)).square().sum()


def test_gradients_of_functions():
    dense, _, layer = pair()
    x = normal(4, 70)
    found = grad(loss(layer), argnums=(0, 1))(dict(layer.named_parameters()), x)
    wanted = grad(loss(dense), argnums=(0, 1))(dict(dense.named_parameters()), x)
    assert_close(found[0]["weight"], wanted[0]["weight"][layer.rows[:, None], layer.index.long()])
    assert_close(found[0]["bias"], wanted[0]["bias"])
    assert_close(found[1], wanted[1])


def test_a_gradient_for_each_input():
    dense, _, layer = pair()
    x = normal(4, 70)
    found = vmap(grad(loss(layer)), (None, 0))(dict(layer.named_parameters()), x)
    wanted = vmap(grad(loss(dense)), (None, 0))(dict(dense.named_parameters()), x)
    assert_close(found["weight"], wanted["weight"][:, layer.rows[:, None], layer.index.long()])
    assert_close(found["bias"], wanted["bias"])


def test_directions_and_second_derivatives():
    dense, _, layer = pair()
    x, direction = normal(4, 70), normal(4, 70, seed=1)
    for found, wanted in zip(jvp(layer, (x,), (direction,)), jvp(dense, (x,), (direction,))):
        assert_close(found, wanted)
    for_one = (lambda x, network=network: network(x).square().sum() for network in (layer, dense))
    found, wanted = (hessian(each)(x[0]) for each in for_one)
    assert_close(found, wanted)


@pytest.mark.parametrize("shape", [(3, 70), (2, 3, 70), (70,)])
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "error::torch.jit.TracerWarning")
def test_a_trace_holds_for_every_batch(shape):
    dense, _, layer = pair()
    with torch.jit.optimized_execution(False):
        traced = torch.jit.trace(layer, normal(*shape), check_trace=False)
        for batch in (1, 3, 50):
            x = normal(*shape) if len(shape) == 1 else normal(batch, *shape[1:])
            assert_close(traced(x), dense(x))


# ---- what is refused, devices ----------------------------------------------------------------------------------------


def test_an_unknown_kernel_is_refused_when_the_layer_is_made():
    dense, mask, layer = pair()
    with pytest.raises(InputError, match=r"kernel must be one of lookup, gather, lanes, dense, or None .*, got 'lane'"):
        CondensedLinear.from_linear(dense, mask, kernel="lane")
    with pytest.raises(InputError, match="kernel must be one of"):
        CondensedLinear(70, 40, layer.weight, layer.index, layer.rows, kernel="Dense")


@pytest.mark.parametrize("module", [nn.Conv2d(3, 4, 1), nn.Bilinear(2, 3, 4), torch.zeros(4, 3)])
def test_only_linear_layers_are_condensed(module):
    name = type(module).__name__
    with pytest.raises(InputError, match=f"from_linear condenses an nn.Linear, got {name}"):
        CondensedLinear.from_linear(module, torch.ones(4, 3, dtype=torch.bool))


@pytest.mark.parametrize("moved", ["weight", "index", "rows", "bias"])
def test_parts_on_two_devices_are_an_error(moved):
    parts = {"weight": torch.zeros(2, 2), "index": torch.tensor([[0, 1], [1, 2]]), "rows": torch.tensor([0, 1])}
    parts["bias"] = torch.zeros(3)
    CondensedLinear(4, 3, **parts)
    parts[moved] = parts[moved].to("meta")
    with pytest.raises(InputError, match=f"must be on one device, got .*{moved} on meta"):
        CondensedLinear(4, 3, **parts)


def test_a_mask_goes_to_the_device_of_the_weights():
    class Elsewhere(torch.Tensor):
        """A mask on another device, as far as one can have that here: what it is moved to is a plain tensor."""

        moved = ()

        def to(self, device):
            Elsewhere.moved += (device,)
            return self.as_subclass(torch.Tensor)

        def nonzero(self):
            raise AssertionError("the mask was not moved")

    dense, mask, layer = pair()
    found = CondensedLinear.from_linear(dense, mask.as_subclass(Elsewhere))
    assert Elsewhere.moved == (dense.weight.device,)
    assert torch.equal(found.index, layer.index)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("batch", [1, 40])
def test_the_compiler_traces_a_layer_on_a_gpu_whole(batch):
    dense, _, layer = pair()
    x = normal(batch, 70).cuda()
    traced = torch.compile(layer.requires_grad_(False).cuda(), backend="eager", fullgraph=True)
    assert_close(traced(x), dense.cuda()(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("batch", [1, 40])
def test_a_mask_on_the_cpu_for_a_layer_on_a_gpu(batch):
    dense, mask, _ = pair()
    layer = CondensedLinear.from_linear(dense.cuda(), mask)
    assert {tensor.device.type for tensor in layer.state_dict().values()} == {"cuda"}
    assert_close(layer(normal(batch, 70).cuda()), dense(normal(batch, 70).cuda()))
