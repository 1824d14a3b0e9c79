"""Covariance between layers: NumPy's on the pixels of upsampled maps, block-diagonal where theory says so."""

import gc

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power, polar
from torch import nn
from torch.nn import functional

from papertwin.errors import InputError, ParameterError
from papertwin.nets import cifar_nin, convolution
from papertwin.nets import covariance as module
from papertwin.nets.block_diagonal import block_diagonal
from papertwin.nets.covariance import LayerCovariance, consecutive_pairs, layer_covariances
from papertwin.nets.layers import Composite, activated, chain
from papertwin.training.loop import torch_threads


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def pixels(maps):
    """(C, N), one column a pixel."""
    return maps.transpose(1, 0, 2, 3).reshape(maps.shape[1], -1)


def measured(first, second, step=3):
    found = LayerCovariance(first.shape[1], second.shape[1])
    for start in range(0, len(first), step):
        found.update(first[start : start + step], second[start : start + step])
    return found


def mixed(seed=0, channels=(5, 4), n=7, sides=(6, 3)):
    """Maps of two layers that have to do with each other, the second of them smaller."""
    first = np.einsum("nchw,cd->ndhw", noise(n, channels[0], sides[0], sides[0], seed=seed), noise(5, 5, seed=seed + 1))
    pooled = functional.avg_pool2d(torch.from_numpy(first), sides[0] // sides[1]).numpy()
    return first + 3, np.einsum("nchw,cd->ndhw", pooled**2, noise(*channels, seed=seed + 2))


@pytest.mark.parametrize("swapped", [False, True])
def test_covariance_is_that_of_numpy_on_repeated_pixels(swapped):
    large, small = mixed()
    pair = (small, large) if swapped else (large, small)
    x = [pixels(np.kron(each, np.ones((1, 1, 6 // each.shape[2], 6 // each.shape[3])))) for each in pair]
    due = np.cov(*x)
    found, first = measured(*pair), len(x[0])
    assert found.samples == 7 * 36
    np.testing.assert_allclose(found.covariance("first"), due[:first, :first], rtol=1e-10)
    np.testing.assert_allclose(found.covariance("second"), due[first:, first:], rtol=1e-10)
    np.testing.assert_allclose(found.cross, due[:first, first:], rtol=1e-9, atol=1e-12)
    for side, values in zip(("first", "second"), x):
        np.testing.assert_allclose(found.correlation(side), np.corrcoef(values), atol=1e-12)


@pytest.mark.parametrize("sides", [((5, 7), (3, 4)), ((7, 6), (2, 6)), ((28, 28), (7, 7)), ((1, 4), (1, 1))])
def test_upsampling_is_the_nearest_one_of_torch(sides):
    large, small = noise(2, 2, *sides[0]), noise(2, 3, *sides[1], seed=1)
    up = functional.interpolate(torch.from_numpy(small), size=sides[0], mode="nearest").numpy()
    x = np.concatenate([pixels(large), pixels(up)])
    np.testing.assert_allclose(measured(large, small).cross, np.cov(x)[:2, 2:], rtol=1e-9, atol=1e-12)


def test_upsampling_misses_no_pixel_where_a_rounded_scale_does():
    found = {}
    for large in range(1, 80):
        for small in range(1, large + 1):
            row = torch.arange(small).reshape(1, 1, 1, small)
            found[large, small] = module._upsampled(row, (1, large)).flatten().tolist()
    assert all(row == [i * small // large for i in range(large)] for (large, small), row in found.items())


def test_batches_do_not_matter(monkeypatch):
    large, small = mixed()
    due = measured(large, small, 7)
    for step, rows in ((1, 2**16), (2, 2**16), (7, 40), (7, 1)):
        monkeypatch.setattr(module, "ROWS", rows)
        found = measured(large, small, step)
        assert found.samples == due.samples
        np.testing.assert_allclose(found.cross, due.cross, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(found.whitened(), due.whitened(), rtol=1e-7, atol=1e-10)


def test_maps_of_any_device(device):
    large, small = (each.astype(np.float32) for each in mixed())
    found = measured(torch.tensor(large, device=device), torch.tensor(small, device=device))
    np.testing.assert_allclose(found.whitened(), measured(large, small).whitened(), rtol=1e-9, atol=1e-10)


def test_each_side_is_whitened_by_itself():
    """W1 Σ12 W2ᵀ with inverse square roots by scipy; the two sides have different counts and scales."""
    large, small = mixed()
    found = measured(large * 100, small)
    first, second = (fractional_matrix_power(found.covariance(side), -0.5) for side in ("first", "second"))
    np.testing.assert_allclose(found.whitened(0), first @ found.cross @ second.T, rtol=1e-7, atol=1e-11)
    np.testing.assert_allclose(found.whitened(), measured(large, 1e-3 * small).whitened(), rtol=1e-6, atol=1e-9)


def test_a_layer_against_itself_is_the_identity_and_against_the_other_way_round_the_transpose():
    large, small = mixed()
    itself = measured(large, large)
    np.testing.assert_allclose(itself.whitened(0), np.eye(5), atol=1e-10)
    np.testing.assert_allclose(itself.cross, itself.covariance("second"), rtol=1e-12)
    np.testing.assert_allclose(measured(small, large).whitened(), measured(large, small).whitened().T, atol=1e-10)


def test_whitened_values_are_bounded_by_canonical_correlations():
    """Singular values of the whitened covariance are the canonical correlations: those of orthonormal bases."""
    large, small = mixed()
    x = [pixels(np.kron(each, np.ones((1, 1, 6 // each.shape[2], 6 // each.shape[3])))) for each in (large, small)]
    bases = [np.linalg.qr((values - values.mean(1, keepdims=True)).T)[0] for values in x]
    due = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(measured(large, small).whitened(0), compute_uv=False), due, atol=1e-9)


def test_dead_channels_are_rows_of_zeros():
    large, small = mixed()
    large[:, 2], small[:, 1] = 0.1, 0
    found = measured(large, small)
    assert np.abs(found.whitened()[2]).max() < 1e-9
    assert np.abs(found.whitened()[:, 1]).max() < 1e-9
    assert not found.correlation("first")[2].any()
    kept = measured(large[:, [0, 1, 3, 4]], small[:, [0, 2, 3]]).whitened(1e-9)
    np.testing.assert_allclose(found.whitened(1e-9)[np.ix_([0, 1, 3, 4], [0, 2, 3])], kept, atol=1e-6)


def white(n, channels, side, seed=0):
    """White noise whose sample covariance is the identity itself."""
    x = pixels(noise(n, channels, side, side, seed=seed))
    x -= x.mean(axis=1, keepdims=True)
    x = np.linalg.qr(x.T)[0].T * np.sqrt(x.shape[1] - 1)
    return torch.from_numpy(x.reshape(channels, n, side, side).transpose(1, 0, 2, 3).copy())


def grouped(channels, filters, groups, seed=0, kernel=1):
    layer = convolution(channels, filters, kernel, groups=groups).double()
    layer.weight.data = torch.from_numpy(noise(*layer.weight.shape, seed=seed))
    return layer


def dense_of(layer):
    """The ungrouped convolution with block-diagonal weights."""
    c, d, g = layer.in_channels, layer.out_channels, layer.groups
    same = convolution(c, d, layer.kernel_size).double()
    same.weight.data.zero_()
    for k in range(g):
        rows, columns = slice(k * d // g, (k + 1) * d // g), slice(k * c // g, (k + 1) * c // g)
        same.weight.data[rows, columns] = layer.weight.data[rows]
    return same


@torch.no_grad()
def test_a_grouped_layer_on_white_noise_is_exactly_block_diagonal():
    """Σ12 is the weights transposed, the whitened one their orthogonal polar factor."""
    x, layer = white(10, 12, 6), grouped(12, 8, 4)
    found, weights = measured(x, layer(x)), dense_of(layer).weight[:, :, 0, 0].numpy()
    np.testing.assert_allclose(found.cross, weights.T, atol=1e-12)
    np.testing.assert_allclose(found.whitened(0), polar(weights.T)[0], atol=1e-10)
    assert block_diagonal(found.whitened(), 4, draws=0).contrast == pytest.approx(1, abs=1e-12)
    assert block_diagonal(found.whitened(), 2, draws=0).share == pytest.approx(1, abs=1e-12)
    plain = block_diagonal(measured(x, grouped(12, 8, 1)(x)).whitened(), 4)
    assert abs(plain.contrast) < 0.2
    assert plain.p_value > 0.05


@torch.no_grad()
def test_large_filters_on_white_noise_are_block_diagonal_but_for_noise():
    """What lies outside the blocks has the variance 1/N of a correlation of independent numbers."""
    x, layer = torch.from_numpy(noise(40, 8, 12, 12)), grouped(8, 8, 4, kernel=3)
    found = measured(x, layer(x))
    outside = np.arange(8)[:, None] // 2 != np.arange(8) // 2
    assert found.whitened()[outside].var() == pytest.approx(1 / found.samples, rel=0.5)
    assert block_diagonal(found.whitened(), 4, draws=0).contrast > 0.97


@torch.no_grad()
def test_a_grouped_layer_is_the_dense_one_with_block_diagonal_weights():
    x, layer = torch.from_numpy(noise(6, 12, 6, 6)), grouped(12, 8, 4, kernel=3)
    ours, dense = measured(x, layer(x)), measured(x, dense_of(layer)(x))
    np.testing.assert_allclose(ours.whitened(), dense.whitened(), atol=1e-11)
    np.testing.assert_allclose(ours.cross, dense.cross, atol=1e-12)


@torch.no_grad()
def test_a_join_in_between_destroys_the_blocks():
    x, join, layer = white(10, 12, 6), grouped(12, 12, 1, seed=1), grouped(12, 12, 4)
    across, direct = measured(x, layer(join(x))), measured(x, layer(x))
    assert abs(block_diagonal(across.whitened(), 4, draws=0).contrast) < 0.2
    assert block_diagonal(direct.whitened(), 4, draws=0).contrast > 0.999


def small_nin(**options):
    return cifar_nin(10, groups=(1, 4, 2), width=1 / 8, in_channels=1, seed=0, **options)


IMAGES = noise(11, 1, 14, 14, seed=5).astype(np.float32)
PAIRS = [("conv2c_relu", "conv3a"), ("conv1c_relu", "conv2a_relu")]


def by_hand(model, images, name):
    """Output of a module of a chain."""
    with torch.no_grad():
        out = torch.from_numpy(images)
        for each, layer in model.eval().named_children():
            out = layer(out)
            if each == name:
                return out


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_layers_are_measured_where_their_modules_end(batch, device):
    found = layer_covariances(small_nin(norm=True, dropout=0.5), IMAGES, PAIRS, batch=batch, device=device)
    assert list(found) == PAIRS
    for pair, ours in found.items():
        due = measured(*(by_hand(small_nin(norm=True, dropout=0.5), IMAGES, name) for name in pair))
        assert (ours.first, ours.second, ours.samples) == (due.first, due.second, due.samples)
        tolerance = 1e-6 if device == "cpu" else 1e-4
        np.testing.assert_allclose(ours.cross, due.cross, atol=tolerance * np.abs(due.cross).max())
        np.testing.assert_allclose(ours.covariance("first"), due.covariance("first"), atol=tolerance * 10)


def test_a_pixel_of_an_image_is_a_sample():
    found = layer_covariances(small_nin(), IMAGES, PAIRS[:1] * 2)  # a pair that is named twice is measured once
    assert found[PAIRS[0]].samples == 11 * 7 * 7  # maps of 7 and 3 pixels a side


def test_consecutive_layers_of_all_blocks_in_one_pass():
    model, runs = small_nin(), []
    model.register_forward_hook(lambda *_: runs.append(1))
    pairs = consecutive_pairs(model)
    assert pairs == [
        *[("conv1a_relu", "conv1b"), ("conv1b_relu", "conv1c"), ("conv1c_relu", "conv2a")],
        *[("conv2a_relu", "conv2b"), ("conv2b_relu", "conv2c"), ("conv2c_relu", "conv3a")],
        *[("conv3a_relu", "conv3b"), ("conv3b_relu", "conv3c")],
    ]
    found = layer_covariances(model, IMAGES, pairs, batch=4)
    assert len(runs) == 3
    assert list(found) == pairs
    alone = layer_covariances(model, IMAGES, pairs[5:6], batch=4)[pairs[5]]
    assert np.array_equal(alone.cross, found[pairs[5]].cross)
    assert consecutive_pairs(model, after_relu=(False, True))[7] == ("conv3b", "conv3c")  # conv3c has no ReLU
    low = chain([*activated("a", Composite(3, [(2, 1, 3)])), ("b", convolution(2, 4, 1))])
    assert consecutive_pairs(low) == [("a_relu", "b")]


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: torch.from_numpy(x),
        lambda x: [x[:5], x[5:]],
        lambda x: iter(np.array_split(x, 4)),
        lambda x: (torch.from_numpy(part) for part in np.split(x, [0, 1, 1, 8])),  # empty batches among them
        lambda x: torch.utils.data.DataLoader(x, batch_size=3),
    ],
)
def test_images_may_come_in_any_batches(cut):
    due = layer_covariances(small_nin(), IMAGES, PAIRS)[PAIRS[0]]
    found = layer_covariances(small_nin(), cut(IMAGES), PAIRS, batch=4)[PAIRS[0]]
    assert found.samples == due.samples
    np.testing.assert_allclose(found.cross, due.cross, atol=1e-6 * np.abs(due.cross).max())


def test_memory_does_not_grow_with_the_images():
    alive, model = [], small_nin()

    def batches():
        for seed in range(12):
            yield noise(4, 1, 14, 14, seed=seed).astype(np.float32)
            gc.collect()
            alive.append(sum(each.numel() for each in gc.get_objects() if issubclass(type(each), torch.Tensor)))

    gc.freeze()  # what is there already need not be looked at twelve times
    try:
        found = layer_covariances(model, batches(), PAIRS)
    finally:
        gc.unfreeze()
    assert found[PAIRS[0]].samples == 12 * 4 * 49
    assert len(set(alive[1:])) == 1


def test_the_model_comes_back_as_it_was(device):
    model = small_nin(norm=True, dropout=0.3).train()
    model.conv2b_norm.eval()
    modes = [layer.training for layer in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.random.get_rng_state()
    layer_covariances(model, IMAGES, PAIRS, device=device)
    for images, pairs in ((np.full_like(IMAGES, np.nan), PAIRS), (IMAGES, [("conv1a", "logits")])):
        with pytest.raises(InputError):
            layer_covariances(model, images, pairs, device=device)
    assert [layer.training for layer in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(layer._forward_hooks for layer in model.modules())
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert torch.equal(torch.random.get_rng_state(), before)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    images, found, used = noise(60, 1, 28, 28).astype(np.float32), [], []
    update = LayerCovariance.update
    monkeypatch.setattr(LayerCovariance, "update", lambda *maps: used.append(torch.get_num_threads()) or update(*maps))
    for threads in (1, 2):
        with torch_threads(threads):
            found.append(layer_covariances(small_nin(), images, PAIRS)[PAIRS[0]].whitened())
            assert torch.get_num_threads() == threads
    assert np.array_equal(*found)
    assert set(used) == {1}


def test_a_relu_in_place_changes_nothing_that_was_measured():
    layers = [("a", grouped(1, 4, 1).float()), ("r", nn.ReLU(inplace=True)), ("b", grouped(4, 6, 2).float())]
    model = chain(layers)
    found = layer_covariances(model, IMAGES, [("a", "r"), ("r", "b")])
    a = model.a(torch.from_numpy(IMAGES)).detach()
    np.testing.assert_allclose(found["a", "r"].cross, measured(a, a.relu()).cross, rtol=1e-5, atol=1e-6)


def test_a_layer_in_groups_is_seen_in_a_network():
    """Its input is white noise, so the blocks of conv2a are there before any training."""
    model = chain(
        [("input", nn.Identity()), ("conv", convolution(16, 16, 3, groups=4)), ("join", convolution(16, 8, 1))]
    )
    images = noise(40, 16, 10, 10).astype(np.float32)
    found = layer_covariances(model, images, [("input", "conv"), ("input", "join")])
    assert block_diagonal(found["input", "conv"].whitened(), 4).contrast > 0.9
    assert abs(block_diagonal(found["input", "join"].whitened(), 4).contrast) < 0.25


class Twice(nn.Module):
    """Runs one module twice, another never."""

    def __init__(self):
        super().__init__()
        self.layer, self.spare, self.relu = convolution(1, 1, 1), convolution(1, 1, 1), nn.ReLU()

    def forward(self, x):
        return self.relu(self.layer(self.relu(x)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: LayerCovariance(0, 2),
        lambda: LayerCovariance(2, 2).update(noise(3, 2, 4, 4), noise(3, 1, 4, 4)),
        lambda: LayerCovariance(2, 2).update(noise(3, 2, 4, 4), noise(2, 2, 4, 4)),
        lambda: LayerCovariance(2, 2).update(noise(3, 2, 4, 5), noise(3, 2, 5, 4)),
        lambda: LayerCovariance(2, 2).update(noise(3, 2, 4, 4), noise(3, 2)),
        lambda: LayerCovariance(2, 2).update(noise(3, 2, 4, 4), noise(3, 2, 0, 4)),
        lambda: LayerCovariance(1, 1).update(np.full((1, 1, 1, 1), np.nan), noise(1, 1, 1, 1)),
        lambda: LayerCovariance(1, 1).cross,
        lambda: measured(*mixed()).covariance("third"),
        lambda: measured(*mixed()).whitened(-1),
        lambda: measured(np.full((9, 2, 1, 7), 0.1), noise(9, 2, 1, 7), 1).whitened(),
        lambda: measured(np.repeat(noise(9, 1, 3, 3), 2, axis=1), noise(9, 2, 3, 3)).whitened(0),
        lambda: layer_covariances(small_nin(), IMAGES, []),
        lambda: layer_covariances(small_nin(), IMAGES, [("conv2c_relu", "conv4a")]),
        lambda: layer_covariances(small_nin(), IMAGES, ["conv2c_relu"]),
        lambda: layer_covariances(small_nin(), IMAGES, [("conv2c_relu", "")]),
        lambda: layer_covariances(small_nin(), IMAGES, [("conv2c", "logits")]),
        lambda: layer_covariances(small_nin(), IMAGES[:0], PAIRS),
        lambda: layer_covariances(small_nin(), iter([]), PAIRS),
        lambda: layer_covariances(small_nin(), [(IMAGES, np.zeros(11))], PAIRS),
        lambda: layer_covariances(small_nin(), IMAGES, PAIRS, batch=0),
        lambda: layer_covariances(Twice(), IMAGES, [("relu", "layer")]),
        lambda: layer_covariances(Twice(), IMAGES, [("layer", "spare")]),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()


def test_a_device_that_does_not_exist():
    with pytest.raises(ParameterError):
        layer_covariances(small_nin(), IMAGES, PAIRS, device="tpu")
