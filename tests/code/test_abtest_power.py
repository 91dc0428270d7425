"""Power and sample size against published values, and against simulation with the tests that read the result."""

import math

import numpy as np
import pytest

from aftersales.abtest.compare import compare_means, compare_proportions
from aftersales.abtest.plan import PlanRequest, plan, text_of
from aftersales.abtest.power import Design, Mean, Proportion, detectable, power, users_needed
from aftersales.core.config import build
from aftersales.core.errors import ConfigError, DataError

HALVES = Design()


def request(**values):
    return build(PlanRequest, values, "ab plan")


@pytest.mark.parametrize(("effect", "each"), [(0.5, 64), (0.8, 26), (1.0, 17)])
def test_two_means_need_the_users_of_cohens_table(effect, each):
    """Cohen 1988, table 2.4.1: two-sided 0.05, power 0.80."""
    assert HALVES.sizes(users_needed(Mean(1.0), effect, HALVES, 0.8)) == (each, each)


def test_two_means_as_in_the_examples_of_r():
    """The help page of R's power.t.test: n = 20, delta = 1 has power 0.869; power 0.90 needs n = 22.02."""
    assert power(Mean(1.0), 1.0, 40, HALVES) == pytest.approx(0.8689528, abs=1e-6)
    assert HALVES.sizes(users_needed(Mean(1.0), 1.0, HALVES, 0.9)) == (23, 23)
    assert power(Mean(1.0), 1.0, 44, HALVES) < 0.9


def test_two_proportions_as_in_the_examples_of_r():
    """The help page of R's power.prop.test: power 0.740; n = 76.7; p2 = 0.8026."""
    assert power(Proportion(0.5), 0.25, 100, HALVES) == pytest.approx(0.740, abs=5e-4)
    assert HALVES.sizes(users_needed(Proportion(0.5), 0.25, HALVES, 0.9)) == (77, 77)
    assert 0.5 + detectable(Proportion(0.5), 100, HALVES, 0.9) == pytest.approx(0.8026, abs=5e-5)


def test_web_experiments_need_about_sixteen_variances_over_the_squared_effect():
    """Kohavi, Longbotham, Sommerfield & Henne 2009, section 3.2: 409,000 and 121,600 users each by the rule of 16."""
    assert users_needed(Mean(30.0), 0.05 * 3.75, HALVES, 0.8) / 2 == pytest.approx(409_000, rel=0.02)
    assert users_needed(Proportion(0.05), 0.05 * 0.05, HALVES, 0.8) / 2 == pytest.approx(121_600, rel=0.02)


def test_large_groups_go_over_into_the_normal_formula():
    z = 1.959964 + 0.841621
    for users in (90_000, 300_000):  # noncentral t, and normal
        expected = z * 2 / math.sqrt(users)
        assert detectable(Mean(1.0), users, HALVES, 0.8) == pytest.approx(expected, rel=1e-4)


def share_found(compare, draw, times=500, alpha=0.05):
    random = np.random.default_rng(3)
    return np.mean([compare(*draw(random)).p < alpha for _ in range(times)])


def test_the_power_of_two_proportions_is_what_the_reader_finds():
    design = Design(shares=(0.7, 0.3))
    found = share_found(compare_proportions, lambda r: (r.random(420) < 0.2, r.random(180) < 0.31))
    assert found == pytest.approx(power(Proportion(0.2), 0.11, 600, design), abs=0.06)


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_the_power_of_two_means_is_what_the_reader_finds(alpha):
    design = Design(shares=(0.75, 0.25), metrics=round(0.05 / alpha))
    found = share_found(compare_means, lambda r: (r.normal(0, 2, 90), r.normal(1.2, 2, 30)), alpha=alpha)
    assert found == pytest.approx(power(Mean(2.0), 1.2, 120, design), abs=0.06)


def test_users_effect_and_power_agree_with_each_other():
    for outcome in (Proportion(0.1), Mean(3.0, correlation=0.5)):
        design = Design(shares=(0.6, 0.2, 0.2), metrics=3)
        users = users_needed(outcome, 0.05, design, 0.9)
        assert power(outcome, 0.05, users, design) >= 0.9 > power(outcome, 0.05, users - 10, design)
        assert detectable(outcome, users, design, 0.9) == pytest.approx(0.05, rel=1e-2)


def test_more_comparisons_unequal_shares_and_no_cuped_cost_users():
    def needed(correlation=0.0, outcome=Mean, **design):
        return users_needed(outcome(0.3, correlation), 0.02, Design(**design), 0.8)

    assert needed(shares=(0.8, 0.2)) == pytest.approx(needed() * 0.25 / 0.16, rel=1e-3)
    for outcome in (Mean, Proportion):
        assert needed(0.6, outcome) == pytest.approx(needed(outcome=outcome) * 0.64, rel=2e-3)
    assert Design(shares=(0.5, 0.25, 0.25), metrics=2).alpha_each == pytest.approx(0.05 / 4)
    assert needed(metrics=4) > needed()


def test_the_smallest_treatment_decides():
    design = Design(shares=(0.5, 0.4, 0.1))
    assert power(Mean(1.0), 0.3, 1000, design) == Mean(1.0).power(0.3, 500, 100, 0.025)


def test_a_plan_answers_what_is_left_open():
    users = plan(request(baseline=0.05, lift=0.1, users_per_day=3000))
    assert users.users_each == [31234, 31234] and users.days == 21 and users.power >= 0.8
    effect = plan(request(baseline=0.05, users=users.users))
    assert effect.lift == pytest.approx(0.1, rel=1e-3) and effect.power == pytest.approx(0.8)
    both = plan(request(baseline=0.05, users=20_000, difference=-0.005))
    assert both.power == pytest.approx(0.38, abs=0.05) and both.lift == pytest.approx(-0.1)
    assert "62,468: control 31,234, treatment 31,234" in text_of(users)


def test_a_pilot_gives_mean_deviation_and_correlation(tmp_path):
    random = np.random.default_rng(0)
    before = random.normal(100, 20, 4000)
    during = 0.5 * before + random.normal(0, 10, 4000)
    table = tmp_path / "pilot.csv"
    rows = [f"u{i},{during[i] / 2},{before[i]}\nu{i},{during[i] / 2},{before[i]}\n" for i in range(4000)]
    table.write_text("user_id,spend,before\n" + "".join(rows), encoding="utf-8")
    found = plan(request(pilot=table, metric="spend", cuped="before", lift=0.05))
    assert found.baseline == pytest.approx(50, rel=0.02) and found.deviation == pytest.approx(math.sqrt(200), rel=0.05)
    assert found.correlation == pytest.approx(math.sqrt(0.5), abs=0.03)
    alone = plan(request(mean=found.baseline, deviation=found.deviation, lift=0.05))
    assert found.users == pytest.approx(alone.users / 2, rel=0.08)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "give one of baseline, deviation (with mean), or pilot (with metric)"),
        ({"baseline": 0.1, "deviation": 3, "users": 100}, "give one of"),
        ({"baseline": 0.1}, "give an effect (difference or lift), users, or both"),
        ({"baseline": 1.1, "lift": 0.1}, "key 'baseline'"),
        ({"baseline": 0.1, "lift": 0.1, "difference": 0.01}, "not both"),
        ({"baseline": 0.1, "lift": 0.0}, "an effect of 0 cannot be found"),
        ({"baseline": 0.1, "lift": math.nan}, "key 'lift'"),
        ({"baseline": 0.1, "lift": 0.1, "share": [0.5, 0.6]}, "sum to 1.1"),
        ({"baseline": 0.1, "lift": 0.1, "share": [1.0]}, "two or more"),
        ({"baseline": 0.1, "lift": 0.1, "share": [1.5, -0.5]}, "above zero"),
        ({"baseline": 0.1, "lift": 0.1, "correlation": 1}, "key 'correlation'"),
        ({"deviation": 0, "difference": 1}, "key 'deviation'"),
        ({"pilot": "a.csv", "users": 10}, "pilot and metric belong together"),
        ({"pilot": "a.csv", "metric": "spend", "users": 10, "correlation": 0.5}, "give cuped instead"),
    ],
)
def test_a_wrong_request_is_named(values, expected):
    with pytest.raises(ConfigError) as error:
        request(**values)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"baseline": 0.6, "lift": 0.9}, "is no share of users"),
        ({"deviation": 3, "lift": 0.1}, "give mean too"),
        ({"deviation": 1, "difference": 1e-9}, "needs more than"),
        ({"baseline": 0.9, "users": 40}, "find no increase at all"),
        ({"deviation": 1, "users": 4, "share": [0.9, 0.05, 0.05]}, "fewer than two"),
        ({"deviation": 1, "difference": 1, "users": 4, "share": [0.9, 0.05, 0.05]}, "fewer than two"),
    ],
)
def test_what_cannot_be_planned_is_said(values, expected):
    with pytest.raises(ConfigError, match=expected):
        plan(request(**values))


def test_a_pilot_of_yes_and_no_gives_a_proportion(tmp_path):
    table = tmp_path / "pilot.jsonl"
    rows = [f'{{"user_id": {user}, "returned": {int(user % 8 == event)}}}\n' for user in range(80) for event in (0, 1)]
    table.write_text("".join(rows), encoding="utf-8")
    found = plan(request(pilot=table, metric="returned:any", users=1000))
    assert (found.outcome, found.baseline) == ("proportion", 0.25)
    assert found.difference == plan(request(baseline=0.25, users=1000)).difference


def test_a_pilot_without_spread_is_refused(tmp_path):
    table = tmp_path / "pilot.csv"
    table.write_text("user_id,spend\na,1\nb,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="the same for all 2 users"):
        plan(request(pilot=table, metric="spend", users=100))
