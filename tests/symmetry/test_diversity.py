"""Divergences against those of SciPy and sums written by hand; ensembles against votes that are known."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy

from papertwin.errors import InputError
from papertwin.symmetry import disagreement, ensemble_accuracy, jensen_shannon, kullback_leibler


def drawn(seed, networks=3, count=7, classes=4, scale=2.0):
    return list(scale * np.random.default_rng(seed).standard_normal((networks, count, classes)))


@given(
    seed=st.integers(0, 10**6), networks=st.integers(2, 5), classes=st.integers(1, 6), scale=st.sampled_from([0.01, 3])
)
@settings(deadline=None, max_examples=40)
def test_divergences_are_those_of_scipy(seed, networks, classes, scale):
    logits = drawn(seed, networks, classes=classes, scale=scale)
    shares = [softmax(each, axis=1) for each in logits]
    leibler = np.mean([entropy(one, other, axis=1) for one, other in permutations(shares, 2)])
    shannon = np.mean([jensenshannon(one, other, axis=1) ** 2 for one, other in combinations(shares, 2)])
    apart = np.mean(
        [[int(p.argmax() != q.argmax()) for p, q in zip(*pair)] for pair in combinations(shares, 2)],
    )
    assert kullback_leibler(logits) == pytest.approx(leibler, rel=1e-9, abs=1e-13)
    assert jensen_shannon(logits) == pytest.approx(shannon, rel=1e-6, abs=1e-13)
    assert disagreement(logits) == pytest.approx(apart)
    assert 0 <= jensen_shannon(logits) <= math.log(2)
    assert jensen_shannon(logits) <= kullback_leibler(logits) / 4 + 1e-12  # JS ≤ ¼ of KL in both directions


def test_divergences_by_hand():
    """p = (0.8, 0.2), q = (0.5, 0.5) at one image, the same at another."""
    one, other = (np.log([share, [0.3, 0.7]]) for share in ([0.8, 0.2], [0.5, 0.5]))
    forward = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    backward = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert kullback_leibler([one, other]) == pytest.approx((forward + backward) / 4)
    middle = 0.8 * math.log(0.8 / 0.65) + 0.2 * math.log(0.2 / 0.35)
    middle += 0.5 * math.log(0.5 / 0.65) + 0.5 * math.log(0.5 / 0.35)
    assert jensen_shannon([one, other]) == pytest.approx(middle / 4)
    assert disagreement([one, other]) == 0  # the first of equal ones is 0 as well
    assert disagreement([one[:, ::-1], other]) == 1.0


def test_nothing_is_lost_near_zero_and_far_from_it():
    """Probabilities of e^−2000 would be 0, and logits of 10⁴ no exponent."""
    one, other = np.array([[0.0, -2000.0]]), np.array([[-2000.0, 0.0]])
    assert kullback_leibler([one, other]) == pytest.approx(2000)
    assert jensen_shannon([one, other]) == pytest.approx(math.log(2))
    assert kullback_leibler([one + 1e4, other - 1e4]) == pytest.approx(2000)
    near = drawn(0, networks=1)[0]
    assert kullback_leibler([near, near + 1e-6 * drawn(1, networks=1)[0]]) == pytest.approx(1e-12, rel=50)


@pytest.mark.parametrize("measure", [disagreement, kullback_leibler, jensen_shannon])
def test_measures_of_all_pairs(measure):
    logits = drawn(3, networks=4)
    assert measure([logits[0]] * 3) == pytest.approx(0, abs=1e-15)
    assert measure([each.tolist() for each in logits]) == measure(logits)
    pairs = [measure(list(pair)) for pair in combinations(logits, 2)]
    assert min(pairs) > 0
    assert measure(logits) == pytest.approx(np.mean(pairs))
    assert measure(logits[::-1]) == pytest.approx(measure(logits))
    shifted = [each + np.arange(7)[:, None] for each in logits]
    assert measure(shifted) == pytest.approx(measure(logits))
    half = [torch.tensor(each, dtype=torch.float32, requires_grad=True) for each in logits]
    assert measure(half) == pytest.approx(measure(logits), rel=1e-5)


def test_an_ensemble_averages_probabilities():
    """Neither votes nor logits: one network is sure, two are not, and one has large logits that hardly differ."""
    sure, weak = np.log([[0.9, 0.1]]), np.log([[0.4, 0.6]])
    assert ensemble_accuracy([sure, weak, weak], [0]) == 1.0  # votes would say 1
    very, mild = np.log([[1 - 1e-9, 1e-9, 1e-12]]), np.log([[0.05, 0.65, 0.30]])
    assert ensemble_accuracy([very, mild, mild], [1]) == 1.0  # the sum of logits would say 0
    assert ensemble_accuracy([very, mild, mild], [0]) == 0.0
    assert ensemble_accuracy([very + 100, mild - 100, mild], torch.tensor([1])) == 1.0


@given(seed=st.integers(0, 10**6), networks=st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_ensembles_by_brute_force(seed, networks):
    logits, labels = drawn(seed, networks), np.random.default_rng(seed).integers(4, size=7)
    mean = sum(softmax(each, axis=1) for each in logits)
    right = [int(row.argmax() == label) for row, label in zip(mean, labels)]
    assert ensemble_accuracy(logits, labels) == pytest.approx(sum(right) / 7)
    assert ensemble_accuracy([logits[0]] * 3, labels) == (logits[0].argmax(1) == labels).mean()


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.uint16, np.int64, np.uint64])
def test_labels_of_any_whole_type_and_layout(kind):
    logits, labels = drawn(2), np.random.default_rng(2).integers(4, size=14)
    wanted = ensemble_accuracy(logits, labels[::-2].tolist())
    assert ensemble_accuracy(logits, labels.astype(kind)[::-2]) == wanted
    assert ensemble_accuracy([each[::-1] for each in logits], labels[1::2].astype(kind)) == wanted


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: disagreement(x[:1]), r"of 2 networks at least, .*got \(7, 4\)"),
        (lambda x: jensen_shannon([]), "got none"),
        (lambda x: kullback_leibler([x[0], x[1][:5]]), r"got \(7, 4\), \(5, 4\)"),
        (lambda x: kullback_leibler([x[0][0], x[1][0]]), r"each \(n, C\) .*got \(4,\)"),
        (lambda x: disagreement([x[0][:0]] * 2), r"got \(0, 4\)"),
        (lambda x: jensen_shannon([x[0], x[1] * math.nan]), "finite numbers"),
        (lambda x: jensen_shannon([x[0], np.log(np.eye(7)[:, :4])]), "finite numbers"),
        (lambda x: ensemble_accuracy([], [0]), "of 1 networks at least"),
        (lambda x: ensemble_accuracy(x, [0] * 6), r"7 whole numbers from 0 to 3, got torch.int64 of \(6,\)"),
        (lambda x: ensemble_accuracy(x, [4] * 7), "from 0 to 3, got .*to 4"),
        (lambda x: ensemble_accuracy(x, []), "7 whole numbers"),
        (lambda x: ensemble_accuracy(x, torch.tensor([], dtype=torch.int64)), "from none to none"),
        (lambda x: ensemble_accuracy(x, [0.0] * 7), "got torch.float32"),
        (lambda x: ensemble_accuracy(x, 3), r"7 whole numbers .*got torch.int64 of \(\) from 3 to 3"),
        (lambda x: ensemble_accuracy(x, [True] * 7), r"7 whole numbers .*got torch.bool of \(7,\)\. Number"),
        (lambda x: ensemble_accuracy(x, [1j] * 7), "got torch.complex64"),
        (lambda x: ensemble_accuracy(x, ["cat"] * 7), "7 whole numbers .*got list: .*Number the classes"),
        (lambda x: ensemble_accuracy(x, np.array(["cat"] * 7)), "7 whole numbers .*got ndarray"),
        (lambda x: ensemble_accuracy(x, None), "got NoneType"),
        (lambda x: ensemble_accuracy(x, [[0], [1, 2]]), "7 whole numbers .*got list"),
        (lambda x: ensemble_accuracy(x, [2**70] * 7), "7 whole numbers .*got list"),
        (lambda x: ensemble_accuracy(x, np.full(7, 2**64 - 1, dtype=np.uint64)), "got torch.uint64"),
        (lambda x: ensemble_accuracy([[[1.0, 2.0], [3.0]]], [0, 0]), "real numbers, .*rows of one length, got list"),
        (lambda x: disagreement([x[0], x[1] + 1j]), r"real numbers, .*got ndarray: complex128 of \(7, 4\)"),
        (lambda x: disagreement([x[0], torch.ones(7, 4, dtype=torch.complex64)]), "got Tensor: torch.complex64"),
        (lambda x: disagreement([x[0], x[1] > 0]), "real numbers, .*got ndarray: bool"),
        (lambda x: disagreement([x[0], torch.tensor(x[1]) > 0]), "real numbers, .*got Tensor: torch.bool"),
        (lambda x: disagreement([x[0], x[1].astype(str)]), "real numbers, .*got ndarray: <U"),
        (lambda x: jensen_shannon(3), "logits must be a sequence, .*got 3"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_arguments_that_cannot_be_used(call, message):
    with pytest.raises(InputError, match=message):
        call(drawn(0))
