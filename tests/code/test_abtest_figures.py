"""Figures of A/B tests against published values and by hand, and intervals that cover the truth in simulation."""

import math

import numpy as np
import pytest

from aftersales.abtest.checks import sample_ratio
from aftersales.abtest.compare import compare_means, compare_proportions, holm
from aftersales.abtest.metrics import adjusted, parse_metrics, samples
from aftersales.abtest.users import Column, UserTable
from aftersales.core.errors import DataError


@pytest.mark.parametrize(
    ("first", "second", "interval"),
    [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090)), ((6, 7), (2, 7), (0.0582, 0.8062))],
)
def test_the_difference_of_proportions_has_newcombes_interval(first, second, interval):
    """Newcombe 1998, table II, method 10, examples a to c."""
    one, two = (np.repeat([1.0, 0.0], [hits, size - hits]) for hits, size in (first, second))
    effect = compare_proportions(two, one)
    assert effect.difference_interval == pytest.approx(interval, abs=5e-5)
    assert effect.difference == pytest.approx(first[0] / first[1] - second[0] / second[1])


def test_the_lift_and_p_of_proportions_by_hand():
    effect = compare_proportions(np.repeat([1.0, 0.0], [20, 180]), np.repeat([1.0, 0.0], [60, 240]))
    assert effect.lift == pytest.approx(1.0)
    half = 1.959964 * math.sqrt(1 / 60 - 1 / 300 + 1 / 20 - 1 / 200)  # Katz et al. 1978
    assert effect.lift_interval == pytest.approx((2 * math.exp(-half) - 1, 2 * math.exp(half) - 1), rel=1e-5)
    z = 0.1 / math.sqrt(0.16 * 0.84 * (1 / 200 + 1 / 300))
    assert effect.p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-9)


@pytest.mark.parametrize(("hits", "lift"), [((0, 0), None), ((0, 5), None), ((10, 10), 0.0)])
def test_proportions_at_the_ends_have_an_answer(hits, lift):
    effect = compare_proportions(*(np.repeat([1.0, 0.0], [hit, 10 - hit]) for hit in hits))
    assert effect.lift == lift and 0 <= effect.p <= 1
    assert effect.difference_interval[0] <= effect.difference <= effect.difference_interval[1]


def test_two_means_by_welch():
    """Student's sleep data (1908) with unequal variances, as on R's help page of t.test: p = 0.07939."""
    one = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    two = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    effect = compare_means(two, one)
    assert effect.p == pytest.approx(0.07939, abs=5e-6)
    assert effect.difference_interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert effect.lift == pytest.approx(0.75 / 2.33 - 1)
    assert compare_means(one, two).lift is None, "a control that cannot be told from zero has no lift"


def test_a_ratio_has_the_variance_of_the_delta_method():
    random = np.random.default_rng(0)
    views = random.poisson(6, 500) + 1.0
    clicks = random.binomial(views.astype(int), 0.2).astype(float)
    (metric,) = parse_metrics(["clicks/views"])
    table = UserTable({"a": np.arange(500)}, {Column("clicks"): clicks, Column("views"): views})
    values = samples(metric, table)["a"]
    ratio = clicks.sum() / views.sum()
    covariance = np.cov(clicks, views)
    delta = covariance[0, 0] - 2 * ratio * covariance[0, 1] + ratio**2 * covariance[1, 1]
    assert values.mean() == pytest.approx(ratio)
    assert values.var(ddof=1) == pytest.approx(delta / views.mean() ** 2)


def test_intervals_of_a_ratio_cover_the_truth_where_events_of_a_user_are_alike():
    random = np.random.default_rng(1)
    (metric,) = parse_metrics(["clicks/views"])
    covered = naive = 0
    for _ in range(300):
        groups = {}
        for name, size in (("a", 150), ("b", 120)):
            views = random.poisson(random.gamma(2, 4, size)) + 1
            taste = np.where(random.random(size) < 0.5, 0.05, 0.35)  # a user clicks often or hardly ever
            groups[name] = (random.binomial(views, taste).astype(float), views.astype(float))
        columns = {Column("clicks"): [g[0] for g in groups.values()], Column("views"): [g[1] for g in groups.values()]}
        joined = {column: np.concatenate(parts) for column, parts in columns.items()}
        found = samples(metric, UserTable({"a": np.arange(150), "b": np.arange(150, 270)}, joined))
        low, high = compare_means(found["a"], found["b"]).difference_interval
        covered += low <= 0 <= high
        p = [g[0].sum() / g[1].sum() for g in groups.values()]
        error = math.sqrt(sum(q * (1 - q) / g[1].sum() for q, g in zip(p, groups.values(), strict=True)))
        naive += abs(p[0] - p[1]) <= 1.96 * error
    assert covered / 300 == pytest.approx(0.95, abs=0.04)
    assert naive / 300 < 0.85, "events counted as if they were users would be sure of nothing"


def test_intervals_of_the_lift_cover_the_truth():
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        effect = compare_means(random.gamma(2, 5, 200), random.gamma(2, 6, 300))
        covered += effect.lift_interval[0] <= 0.2 <= effect.lift_interval[1]
    assert covered / 300 == pytest.approx(0.95, abs=0.04)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_cuped_takes_out_what_was_foretold_and_nothing_of_the_effect():
    random = np.random.default_rng(0)
    differences, plain, kept = [], [], []
    for _ in range(200):
        before = {name: random.normal(10, 2, 100) for name in "ab"}
        found = {name: before[name] + random.normal(0, 1, 100) + (name == "b") for name in "ab"}
        after, remaining = adjusted(found, before)
        differences.append(after["b"].mean() - after["a"].mean())
        plain.append(found["b"].mean() - found["a"].mean())
        kept.append(remaining)
    assert np.mean(differences) == pytest.approx(1.0, abs=0.04)
    assert np.mean(kept) == pytest.approx(0.2, abs=0.02)  # 1 - 0.8, the squared correlation
    assert np.var(differences) / np.var(plain) == pytest.approx(0.2, abs=0.06)


def test_cuped_takes_users_without_a_figure_from_before_as_a_group_of_their_own():
    random = np.random.default_rng(0)
    before = {name: np.where(random.random(3000) < 0.4, np.nan, random.normal(10, 2, 3000)) for name in "ab"}
    found = {name: np.nan_to_num(before[name], nan=40.0) + random.normal(0, 1, 3000) for name in "ab"}
    after, remaining = adjusted(found, before)
    assert remaining < 0.01 and np.isfinite(after["a"]).all()
    assert np.concatenate(list(after.values())).mean() == pytest.approx(np.concatenate(list(found.values())).mean())


@pytest.mark.parametrize("values", [[5.0] * 4, [math.nan] * 4])
def test_cuped_with_a_column_that_says_nothing_is_refused(values):
    found = {"a": np.arange(4.0), "b": np.arange(4.0)}
    with pytest.raises(DataError, match="says nothing"):
        adjusted(found, dict.fromkeys("ab", np.array(values)))


def test_the_sample_ratio_by_hand():
    assert sample_ratio({"a": 600, "b": 400}, {"a": 0.5, "b": 0.5}) == pytest.approx(2.54e-10, rel=0.01)
    assert sample_ratio({"a": 600, "b": 400}, {"a": 0.6, "b": 0.4}) == 1.0
    assert sample_ratio({"a": 600, "b": 400, "c": 0}, {"a": 0.6, "b": 0.3, "c": 0.1}) < 0.0005


def test_false_mismatches_are_as_rare_as_the_limit_says():
    random = np.random.default_rng(0)
    drawn = random.binomial(10_000, 0.3, 1000)
    p = [sample_ratio({"a": int(k), "b": 10_000 - int(k)}, {"a": 0.3, "b": 0.7}) for k in drawn]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.02)
