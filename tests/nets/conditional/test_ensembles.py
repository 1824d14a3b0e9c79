"""The two-route ensemble: its curve by counting, its area on cases known by hand, its router on planted data."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.errors import InputError
from papertwin.nets.conditional import at_threshold, correct_answers, fit_correctness, relative_cost, sweep


@st.composite
def ensembles(draw):
    """Predictions with many ties, and answers."""
    n = draw(st.integers(1, 25))
    guess = draw(st.lists(st.integers(0, 4), min_size=2 * n, max_size=2 * n))
    right = draw(st.lists(st.booleans(), min_size=2 * n, max_size=2 * n))
    return np.reshape(guess, (n, 2)) / 4, np.reshape(right, (n, 2)), draw(st.integers(2, 12))


@given(ensembles(), st.sampled_from([0.0, 0.25]))
def test_each_point_by_counting(case, router):
    guess, right, views = case
    curve = sweep(guess, right, views=views, router=router)
    gains = guess[:, 1] - guess[:, 0]
    assert curve.threshold.tolist() == [np.inf, *sorted(set(gains), reverse=True)]
    for threshold, fraction, cost, error in zip(curve.threshold, curve.fraction, curve.cost, curve.error):
        sent = [gain >= threshold for gain in gains]
        wrong = [not (dear if s else cheap) for s, (cheap, dear) in zip(sent, right)]
        assert fraction == pytest.approx(np.mean(sent))
        assert error == pytest.approx(np.mean(wrong))
        passes = [views if s else 1 for s in sent]  # an image sent to route 2 is seen `views` times in all
        assert cost == pytest.approx(np.mean(passes) + router)
        assert at_threshold(guess, right, threshold, views=views, router=router) == pytest.approx((cost, error))


@given(ensembles(), st.sampled_from([0.0, 0.25]))
def test_the_curve_ends_at_both_routes(case, router):
    guess, right, views = case
    curve = sweep(guess, right, views=views, router=router)
    first, second = 1 - right.mean(axis=0)
    assert curve.ends == ((1, pytest.approx(first)), (views, pytest.approx(second)))
    assert (curve.fraction[0], curve.fraction[-1]) == (0, 1)
    assert (curve.cost[0], curve.cost[-1]) == pytest.approx((1 + router, views + router))
    assert (curve.error[0], curve.error[-1]) == pytest.approx((first, second))
    assert (np.diff(curve.cost) > 0).all()


def test_cost_is_that_of_the_report():
    assert relative_cost(0) == 1
    assert relative_cost(1) == 10
    assert relative_cost(0.5, router=0.125) == 1 + 9 * 0.5 + 0.125
    np.testing.assert_allclose(relative_cost(np.array([0, 0.5, 1]), views=3), [1, 2, 3])
    assert relative_cost(1, views=1) == 1


def test_a_perfect_router_by_hand():
    """Ten images, route 1 wrong on four, route 2 right on two of these: error .4 at 1, .2 at 2.8 and at 10."""
    right = np.ones((10, 2), bool)
    right[:4, 0] = right[:2, 1] = False
    curve = sweep(right.astype(float), right)
    np.testing.assert_allclose(curve.cost, [1, 2.8, 10])
    np.testing.assert_allclose(curve.error, [0.4, 0.2, 0.2])
    np.testing.assert_allclose(curve.chord([0, 1, 5.5, 10, 11]), [0.4, 0.4, 0.3, 0.2, 0.2])
    assert curve.area_below_chord == pytest.approx(9 * 0.3 - 1.8 * 0.3 - 7.2 * 0.2)
    paid = sweep(right.astype(float), right, router=0.5)
    begin = 0.5 * (0.4 + 0.4 - 0.2 / 18) / 2  # below the chord from cost 1 to 1.5, where the curve now begins
    assert paid.area_below_chord == pytest.approx(curve.area_below_chord - begin + 0.5 * 0.2)


def test_a_router_without_opinion_is_on_the_chord_and_a_wrong_one_above():
    rng = np.random.default_rng(0)
    right = np.stack([rng.random(20_000) < 0.7, rng.random(20_000) < 0.9], axis=1)
    blind = sweep(np.full((20_000, 2), 0.5), right)
    assert len(blind.cost) == 2
    assert blind.area_below_chord == pytest.approx(0, abs=1e-12)
    assert sweep(np.full((20_000, 2), 0.5), right, router=0.1).area_below_chord < 0
    assert sweep(rng.random((20_000, 2)), right).area_below_chord == pytest.approx(0, abs=0.03)
    best, worst = sweep(right.astype(float), right), sweep(1 - right.astype(float), right)
    assert best.area_below_chord > 0.5
    assert worst.area_below_chord < -0.5


def test_a_better_first_route_needs_no_second():
    right = np.array([[True, False], [True, True], [True, False]])
    curve = sweep(right.astype(float), right, views=3)
    assert curve.error.tolist() == pytest.approx([0, 0, 2 / 3])
    assert curve.area_below_chord > 0


def planted(n, seed):
    """Feature 0 says whether route 1 is right, feature 1 whether route 2 is; the rest is noise, of another unit."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 5)) * [1, 1, 100, 0.01, 1] + [0, 0, 500, 0, 0]
    chance = 1 / (1 + np.exp(-3 * features[:, :2] - [0, 1]))
    return features, rng.random((n, 2)) < chance, chance


def test_the_router_finds_the_planted_rule():
    features, correct, _ = planted(4000, 0)
    router = fit_correctness(features, correct)
    other, right, chance = planted(4000, 1)
    assert np.abs(router.predict(other) - chance).mean() < 0.02
    learned, best = sweep(router.predict(other), right), sweep(chance, right)
    assert learned.area_below_chord > 0.9 * best.area_below_chord
    assert best.area_below_chord > 0.5
    assert router.macs == 2 * 5 + 2
    maps = torch.tensor(other.reshape(-1, 5, 1, 1), dtype=torch.float32, requires_grad=True)
    np.testing.assert_allclose(router.predict(maps), router.predict(other), atol=1e-4)


def test_the_unit_of_a_feature_does_not_matter_and_a_penalty_pulls_to_the_mean():
    features, correct, _ = planted(500, 2)
    due = fit_correctness(features, correct).predict(features)
    scaled = features * [10, 0.1, 1, 3, 7] + 5
    np.testing.assert_allclose(fit_correctness(scaled, correct).predict(scaled), due, atol=1e-3)
    flat = fit_correctness(features, correct, penalty=1e9).predict(features)
    np.testing.assert_allclose(flat, np.broadcast_to(correct.mean(axis=0), flat.shape), atol=1e-3)


def test_a_route_that_is_always_right_or_never():
    features, correct, _ = planted(100, 3)
    correct[:, 1] = True
    router = fit_correctness(features, correct)
    assert (router.predict(features)[:, 1] == 1).all()
    correct[:, 1] = False
    assert (fit_correctness(features, correct).predict(features)[:, 1] == 0).all()
    assert 0 < router.predict(features)[:, 0].min() < router.predict(features)[:, 0].max() < 1


def test_a_threshold_is_chosen_on_some_images_and_used_on_others():
    _, right, chance = planted(3000, 4)
    curve = sweep(chance, right, router=0.01)
    threshold = curve.threshold_within(4.2)
    cost, error = at_threshold(chance, right, threshold, router=0.01)
    assert 4.2 - 10 / 3000 <= cost <= 4.2
    assert error == curve.error[curve.cost == cost]
    assert curve.threshold_within(1.01) == np.inf
    assert curve.threshold_within(99) == curve.threshold[-1]
    _, later, other = planted(3000, 5)
    assert at_threshold(other, later, threshold, router=0.01)[0] == pytest.approx(4.2, abs=0.4)
    with pytest.raises(InputError, match=r"at least 1\.01"):
        curve.threshold_within(1.005)


@given(st.integers(1, 20), st.integers(1, 5), st.data(), st.integers(0, 10**6))
@settings(deadline=None)
def test_right_answers_by_sorting(n, classes, data, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(3, size=(n, classes)) / 2, rng.integers(classes, size=n)
    top = data.draw(st.integers(1, classes))
    due = [c in sorted(range(classes), key=lambda k: (-row[k], k))[:top] for row, c in zip(scores, labels)]
    assert correct_answers(scores, labels, top).tolist() == due
    assert correct_answers(torch.tensor(scores), torch.tensor(labels), top).tolist() == due


def test_a_class_that_was_not_evaluated_is_no_answer():
    scores = np.array([[1.0, -np.inf, -np.inf], [-np.inf, -np.inf, 2.0]])
    assert correct_answers(scores, [0, 0], top=3).tolist() == [True, False]
    assert correct_answers(scores, [1, 2], top=2).tolist() == [False, True]


YES = np.ones((3, 2), bool)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sweep(np.ones((2, 2)), YES),
        lambda: sweep(np.ones((3, 3)), YES),
        lambda: sweep(np.ones((3, 2)), np.ones((3, 2))),
        lambda: sweep(np.full((3, 2), np.nan), YES),
        lambda: sweep(np.ones((0, 2)), YES[:0]),
        lambda: sweep(np.ones((3, 2)), YES, views=0),
        lambda: sweep(np.ones((3, 2)), YES, views=2.5),
        lambda: sweep(np.ones((3, 2)), YES, router=-0.1),
        lambda: at_threshold(np.ones((3, 2)), YES[:2], 0.1),
        lambda: fit_correctness(np.ones((2, 4)), YES),
        lambda: fit_correctness(np.ones(3), YES),
        lambda: fit_correctness(np.ones((3, 4)), YES, penalty=0),
        lambda: fit_correctness(np.ones((3, 4)), YES).predict(np.ones((3, 5))),
        lambda: correct_answers(np.ones((3, 2)), [0, 1, 2]),
        lambda: correct_answers(np.ones((3, 2)), [0, 1]),
        lambda: correct_answers(np.ones(3), [0, 1, 2]),
        lambda: correct_answers(np.full((2, 2), np.nan), [0, 1]),
        lambda: correct_answers(np.ones((2, 2)), [0, 1], top=3),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()
