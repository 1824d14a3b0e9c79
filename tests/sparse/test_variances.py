"""Variance of output norms: exact moments in fractions, all masks one by one, and simulations with all weights."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.errors import InputError, ParameterError
from papertwin.sparse import variances
from papertwin.sparse.masks import largest
from papertwin.sparse.variances import KINDS, norm_variance, simulated_norms

SIZES = st.integers(2, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


def exact_variance(n, same_row, other_rows, k):
    """E‖z‖⁴ − 1 from the chances that two weights of a neuron, and two of different neurons, are both active.

    With s_i = Σ_j m_ij ξ_j u_j², E‖z‖⁴ = 4/k² (3 Σ_i E s_i² + Σ_{i≠l} E s_i s_l); E u_j⁴ = 3/(n(n+2)) and
    E u_i² u_j² = 1/(n(n+2)) on the sphere, E ξ² = ½ and (E ξ)² = ¼.
    """
    sphere = Fraction(1, n * (n + 2))
    square = (n * Fraction(k, n) * Fraction(3, 2) + n * (n - 1) * same_row / 4) * sphere
    product = (n * other_rows * Fraction(3, 2) + n * (n - 1) * other_rows / 4) * sphere
    return Fraction(4, k * k) * (3 * n * square + n * (n - 1) * product) - 1


def both_active(n, k, kind):
    """Chance that two weights of one neuron are both active, and two of different neurons."""
    share = Fraction(k, n)
    if kind == "bernoulli":
        return share**2, share**2
    if kind == "layer":
        return (Fraction(n * k * (n * k - 1), n**2 * (n**2 - 1)),) * 2
    return Fraction(k * (k - 1), n * (n - 1)), share**2


@given(sizes=SIZES, kind=st.sampled_from(list(KINDS)))
@settings(deadline=None)
def test_formulas_are_the_exact_moments(sizes, kind):
    n, k = sizes
    assert norm_variance(n, k, kind) == pytest.approx(float(exact_variance(n, *both_active(n, k, kind), k)), rel=1e-9)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (2, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_formulas_by_all_masks(n, k, kind):
    """Given a mask, E s_i s_l = Σ_{jj'} m_ij m_lj' E ξ_j ξ_j' u_j² u_j'²; masks have equal or binomial chances."""
    total, chances = Fraction(0), Fraction(0)
    moments = [[Fraction(3, 2) if i == j else Fraction(1, 4) for j in range(n)] for i in range(n)]
    for bits in itertools.product((0, 1), repeat=n * n):
        rows = [bits[i * n : (i + 1) * n] for i in range(n)]
        if (kind == "neuron" and any(sum(row) != k for row in rows)) or (kind == "layer" and sum(bits) != n * k):
            continue
        chance = Fraction(k, n) ** sum(bits) * Fraction(n - k, n) ** (n * n - sum(bits)) if kind == "bernoulli" else 1
        fourth = sum(
            (3 if i == other else 1) * rows[i][j] * rows[other][m] * moments[j][m]
            for i, other, j, m in itertools.product(range(n), repeat=4)
        )
        total, chances = total + chance * fourth, chances + chance
    assert norm_variance(n, k, kind) == pytest.approx(float(Fraction(4, k * k * n * (n + 2)) * total / chances - 1))


@given(sizes=SIZES)
@settings(deadline=None)
def test_constant_fan_in_varies_least(sizes):
    n, k = sizes
    bernoulli, layer, neuron = (norm_variance(n, k, kind) for kind in ("bernoulli", "layer", "neuron"))
    if k == n:
        assert bernoulli == pytest.approx(5 / n) == pytest.approx(layer) == pytest.approx(neuron)
    elif n > 2:
        assert bernoulli > layer > neuron > 0


def test_two_neurons_of_one_input_are_the_exception():
    """Of n = 2, k = 1 the paper's order does not hold: one weight each varies more than two anywhere."""
    bernoulli, layer, neuron = (norm_variance(2, 1, kind) for kind in KINDS)
    assert (bernoulli, layer, neuron) == pytest.approx((19 / 4, 13 / 3, 35 / 8))


def directly(n, k, kind, draws, rng):
    """‖z‖² with all n² weights drawn, in NumPy."""
    norms = np.empty(draws)
    for draw in range(draws):
        if kind == "bernoulli":
            mask = rng.random((n, n)) < k / n
        elif kind == "layer":
            mask = rng.permutation(np.arange(n * n) < n * k).reshape(n, n)
        else:
            mask = rng.permuted(np.tile(np.arange(n) < k, (n, 1)), axis=1)
        u = rng.normal(size=n)
        inputs = rng.integers(0, 2, n) * u / np.linalg.norm(u)
        norms[draw] = np.sum((math.sqrt(2 / k) * (mask * rng.normal(size=(n, n))) @ inputs) ** 2)
    return norms


def moments(norms):
    """Mean and variance, each with its standard error."""
    count, mean, variance = len(norms), norms.mean(), norms.var(ddof=1)
    fourth = ((norms - mean) ** 4).mean()
    return (mean, math.sqrt(variance / count)), (variance, math.sqrt((fourth - variance**2) / count))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "k"), [(6, 1), (12, 3)])
def test_simulations_agree_with_theory_and_with_one_another(n, k, kind):
    (mean, error), (variance, spread) = moments(simulated_norms(n, k, kind, draws=40_000, seed=1).numpy())
    assert abs(mean - 1) < 4 * error
    assert abs(variance - norm_variance(n, k, kind)) < 4 * spread
    (other, error), (direct, width) = moments(directly(n, k, kind, 4000, np.random.default_rng(0)))
    assert abs(other - 1) < 4 * error
    assert abs(direct - norm_variance(n, k, kind)) < 4 * width


def test_simulations_tell_constant_fan_in_from_chance():
    (_, (chance, error)), (_, (constant, spread)) = (
        moments(simulated_norms(6, 1, kind, draws=200_000, seed=2).numpy()) for kind in ("bernoulli", "neuron")
    )
    assert chance - constant > 4 * math.hypot(error, spread)


def test_masks_have_their_counts(device):
    generator = torch.Generator(device).manual_seed(0)
    neuron, layer, bernoulli = (
        variances._masks(7, 3, kind, 500, generator) for kind in ("neuron", "layer", "bernoulli")
    )
    assert neuron.shape == layer.shape == bernoulli.shape == (500, 7, 7)
    assert (neuron.sum(2) == 3).all()
    assert (layer.sum((1, 2)) == 21).all()
    assert len(layer.sum(2).unique()) > 3
    counts = bernoulli.sum((1, 2)).double().cpu()
    assert counts.mean() == pytest.approx(21, abs=4 * math.sqrt(21 * 4 / 7 / 500))
    assert counts.var() == pytest.approx(21 * 4 / 7, rel=0.3)
    for masks in (neuron, layer, bernoulli):  # no place is more likely than another
        assert (masks.double().mean(0) - 3 / 7).abs().max() < 5 * math.sqrt(12 / 49 / 500)


@pytest.mark.parametrize("values", [3, 50, 2**24])
@pytest.mark.parametrize("count", [1, 7, 20])
def test_the_largest_scores_are_chosen_and_equal_ones_as_topk_does(values, count, device):
    scores = torch.randint(0, values, (300, 20), generator=torch.Generator().manual_seed(0)).to(device) / values
    assert torch.equal(variances._chosen(scores, count), largest(scores, count))
    assert torch.equal(variances._chosen(scores.view(15, 20, 20), count).view(300, 20), largest(scores, count))


def test_draws_come_in_chunks_and_from_the_seed(monkeypatch):
    one = simulated_norms(8, 3, "neuron", draws=50, seed=4)
    assert one.shape == (50,)
    assert one.dtype == torch.float64
    assert torch.equal(one, simulated_norms(8, 3, "neuron", draws=50, seed=4))
    assert not torch.equal(one, simulated_norms(8, 3, "neuron", draws=50, seed=5))
    assert len(one.unique()) == 50
    monkeypatch.setattr(variances, "CHUNK", 640)  # ten at a time
    assert len(simulated_norms(8, 3, "neuron", draws=57, seed=4).unique()) == 57
    monkeypatch.setattr(variances, "CHUNK", 1)
    assert len(simulated_norms(8, 3, "neuron", draws=3, seed=4).unique()) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda: norm_variance(1, 1, "neuron"),
        lambda: norm_variance(8, 0, "neuron"),
        lambda: norm_variance(8, 9, "layer"),
        lambda: norm_variance(8.0, 2, "layer"),
        lambda: norm_variance(8, 2, "row"),
        lambda: simulated_norms(8, 2, "row", draws=10, seed=0),
        lambda: simulated_norms(8, 2, "layer", draws=1, seed=0),
        lambda: simulated_norms(8, 2, "layer", draws=10, seed=-1),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()


def test_devices_that_are_not_there():
    with pytest.raises(ParameterError, match="Unknown device"):
        simulated_norms(8, 2, "layer", draws=10, seed=0, device="abacus")


def test_every_kind_has_its_own_words():
    for kind, word in (("bernoulli", "probability"), ("layer", "in the layer"), ("neuron", "in each neuron")):
        assert word in KINDS[kind]
