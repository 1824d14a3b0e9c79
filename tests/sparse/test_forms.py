"""Forms of a layer: all are the masked dense layer; all that is drawn comes of the seed; compressed rows are fast."""

import subprocess
import sys

import pytest
import torch

from papertwin.errors import InputError, RunError
from papertwin.sparse import forms
from papertwin.sparse.condensed import CondensedLinear
from papertwin.sparse.forms import FORMS

SHAPE = (40, 64)


def inputs(batch, width=64, seed=1):
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))


def test_names_and_their_order():
    names = ("condensed", "condensed, ablated", "structured only", "CSR, torch", "CSR, SciPy", "dense")
    assert tuple(forms.ways(forms.layers(SHAPE, 0.9, 0.3, 0), inputs(2))) == FORMS == names


@pytest.mark.parametrize("batch", [1, 2, 20, 40])
@pytest.mark.parametrize(("sparsity", "ablated"), [(0.9, 0.3), (0.5, 0.3), (0.0, 0.5), (0.99, 0.0)])
@pytest.mark.parametrize("inference", [True, False])
def test_every_form_is_its_masked_layer(batch, sparsity, ablated, inference):
    drawn, x = forms.layers(SHAPE, sparsity, ablated, 0), inputs(batch)
    with torch.inference_mode(inference):
        found = {name: call() for name, call in forms.ways(drawn, x).items()}
    both = (drawn.condensed, drawn.ablated)
    assert not any(values.requires_grad for layer in both for values in layer.parameters())
    whole, least = (masked(layer, x) for layer in both)
    for name in ("condensed", "CSR, torch", "CSR, SciPy", "dense"):
        torch.testing.assert_close(found[name].double(), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["condensed, ablated"].double(), least, rtol=1e-4, atol=1e-4)
    rows = drawn.ablated.mask().any(1)
    torch.testing.assert_close(found["structured only"].double(), least[:, rows], rtol=1e-4, atol=1e-4)
    assert not any(y.requires_grad for y in found.values())


def masked(layer, x):
    """y[b, n] = Σ w[n, i] x[b, i] + bias[n], weight by weight in float64."""
    weight = torch.zeros(SHAPE, dtype=torch.float64)
    for row, places, values in zip(layer.rows.tolist(), layer.index.tolist(), layer.weight.tolist()):
        for place, value in zip(places, values):
            weight[row, place] = value
    return torch.stack([(weight * each.double()).sum(1) + layer.bias.double() for each in x])


def test_the_papers_layer_keeps_its_number_of_weights_when_neurons_go():
    found = [list(forms.fan_ins((768, 3072), sparsity, 0.3).values()) for sparsity in (0.8, 0.9, 0.95, 0.99)]
    assert [first for first, _ in found] == [(768, 614), (768, 307), (768, 153), (768, 30)]
    assert [second for _, second in found] == [(537, 878), (537, 439), (537, 218), (537, 42)]
    assert forms.fan_ins((3, 4), 0.9, 0.9) == {"condensed": (3, 1), "condensed, ablated": (1, 3)}
    assert forms.fan_ins((30, 4), 0.0, 0.5) == {"condensed": (30, 4), "condensed, ablated": (15, 4)}


@pytest.mark.parametrize(("sparsity", "ablated"), [(1.0, 0.3), (-0.1, 0.3), (0.9, 1.0), (0.9, -0.1)])
def test_shares_that_are_none_are_an_error(sparsity, ablated):
    with pytest.raises(InputError, match="must be a number of at least 0 and below 1, got"):
        forms.layers(SHAPE, sparsity, ablated, 0)


# ---- drawing ---------------------------------------------------------------------------------------------------------


def test_all_that_is_drawn_comes_of_the_seed():
    x, before = inputs(3), torch.random.get_rng_state()
    first, again, other = (
        {name: call() for name, call in forms.ways(forms.layers(SHAPE, 0.9, 0.3, seed), x).items()}
        for seed in (5, 5, 6)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in FORMS:
        assert torch.equal(first[name], again[name])
        assert not torch.isclose(first[name], other[name]).any()


def test_ablated_neurons_are_drawn():
    rows = [forms.layers(SHAPE, 0.9, 0.3, seed).ablated.rows.tolist() for seed in range(3)]
    assert all(len(each) == 28 and each != list(range(28)) for each in rows)
    assert rows[0] != rows[1] != rows[2]


# ---- what is compared, how -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["condensed", "ablated"])
@pytest.mark.parametrize("factor", [2, float("nan")])
def test_a_form_with_other_results_is_an_error(monkeypatch, which, factor):
    drawn = forms.layers(SHAPE, 0.9, 0.3, 0)
    wrong, to_dense = getattr(drawn, which), CondensedLinear.to_dense

    def changed(layer):
        dense = to_dense(layer)
        return dense if layer is not wrong else dense.requires_grad_(False).apply(lambda m: m.weight.mul_(factor))

    monkeypatch.setattr(CondensedLinear, "to_dense", changed)
    with pytest.raises(RunError, match=r"condensed.* and the masked dense layer differ by .*, batch 3"):
        forms.ways(drawn, inputs(3))


def test_outputs_that_lie_the_wrong_way_are_an_error(monkeypatch):
    real = forms._compressed
    monkeypatch.setattr(forms, "_compressed", lambda *a: tuple(lambda call=call: call().t() for call in real(*a)))
    with pytest.raises(RunError, match=r"CSR, torch: outputs have the shape \(40, 3\), not \(3, 40\)"):
        forms.ways(forms.layers(SHAPE, 0.9, 0.3, 0), inputs(3))


def test_one_input_is_a_vector_for_compressed_rows(monkeypatch):
    used = []
    for name in ("addmv", "addmm"):
        real = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, real=real, name=name: used.append(name) or real(*a))
    for batch in (1, 2):
        forms.ways(forms.layers(SHAPE, 0.9, 0.3, 0), inputs(batch))["CSR, torch"]()
    assert used == ["addmv"] * 2 + ["addmm"] * 2


def test_nothing_is_said_of_a_beta():
    code = "import torch; from papertwin.sparse import forms; "
    code += "forms.ways(forms.layers((40, 64), 0.9, 0.3, 0), torch.zeros(1, 64) + 1)['CSR, torch']()"
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
