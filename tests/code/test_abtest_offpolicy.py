"""Off-policy estimates: by hand, on simulated policies whose value is known, and on logs that cannot be trusted."""

import math

import numpy as np
import pytest

from aftersales.abtest.offpolicy import Log, OffPolicyRequest, estimate, evaluate, text_of
from aftersales.core.config import build
from aftersales.core.errors import ConfigError, DataError
from aftersales.evaluation.intervals import bootstrap_interval, resampled_means


class World:
    """Users who like items differently; one policy shows items by chance, the other is to be judged from its log."""

    def __init__(self, items=20, sharpness=2.0, seed=4):
        random = np.random.default_rng(seed)
        self.liking = random.normal(size=items) * 0.5
        self.logged = random.dirichlet(np.full(items, 5.0))
        target = np.exp(sharpness * self.liking)
        self.target = target / target.sum()

    def rates(self, mood):
        return 1 / (1 + np.exp(2 - self.liking - np.reshape(mood, (-1, 1))))

    def truth(self, policy):
        mood = np.random.default_rng(9).normal(size=20_000) * 0.7
        return float((self.rates(mood) @ policy).mean())

    def log(self, random, users=250, rows=4):
        mood = random.normal(size=users) * 0.7
        who = np.repeat(np.arange(users), rows)
        shown = random.choice(len(self.liking), size=len(who), p=self.logged)
        rewards = (random.random(len(who)) < self.rates(mood)[who, shown]).astype(float)
        return Log(who, self.target[shown] / self.logged[shown], rewards, {})


def write(path, rows, header="user_id,propensity,target_propensity,reward"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return build(OffPolicyRequest, {"log": path, "resamples": 100}, "ab offpolicy")


def test_the_estimates_by_hand():
    log = Log(np.array([0, 0, 1, 2]), np.array([2.0, 0.0, 1.0, 4.0]), np.array([1.0, 1.0, 0.0, 0.5]), {})
    found = evaluate(log, clip=2.0, resamples=100)
    assert found.logged == pytest.approx(2.5 / 4)
    assert found.estimates["ips"].value == pytest.approx((2 + 0 + 0 + 2) / 4)
    assert found.estimates["snips"].value == pytest.approx(4 / 7)
    assert found.estimates["clipped"].value == pytest.approx((2 + 1) / 4)
    assert found.estimates["ips"].difference == pytest.approx(1.0 - 0.625)
    assert found.effective_rows == pytest.approx(49 / 21) and found.weight == pytest.approx(7 / 4)
    assert (found.clipped, found.users, found.rows) == (0.25, 3, 4)
    assert evaluate(log, resamples=100).clip == 2.0, "the root of the rows"


def test_the_same_policy_has_the_logged_value():
    log = World().log(np.random.default_rng(0))
    found = evaluate(Log(log.users, np.ones(len(log.users)), log.rewards, {}), resamples=200)
    for one in found.estimates.values():
        assert one.value == pytest.approx(found.logged) and one.difference_interval == pytest.approx((0, 0))
    assert found.effective_rows == pytest.approx(1000) and found.warnings == []


def test_intervals_cover_the_known_value_about_95_times_of_100():
    world, random = World(), np.random.default_rng(0)
    truth = world.truth(world.target)
    apart = truth - world.truth(world.logged)
    assert apart > 0.03
    times, covered, logged = 200, dict.fromkeys(("ips", "snips", "clipped", "difference"), 0), 0
    for _ in range(times):
        found = evaluate(world.log(random), resamples=200)
        for name, one in found.estimates.items():
            covered[name] += one.interval[0] <= truth <= one.interval[1]
        low, high = found.estimates["snips"].difference_interval
        covered["difference"] += low <= apart <= high
        logged += found.logged_interval[0] <= truth <= found.logged_interval[1]
    for name, count in covered.items():
        assert count / times == pytest.approx(0.95, abs=0.05), name
    assert logged / times < 0.5, "the logged policy has another value, else this shows nothing"


def test_events_of_a_user_are_drawn_together():
    """Every user's rows bear the same reward, so ten rows say no more than one."""
    random = np.random.default_rng(0)
    reward = random.random(200)
    once = Log(np.arange(200), np.ones(200), reward, {})
    often = Log(np.repeat(np.arange(200), 10), np.ones(2000), np.repeat(reward, 10), {})
    widths = [np.diff(evaluate(log, resamples=500).estimates["ips"].interval)[0] for log in (once, often)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_the_same_seed_gives_the_same_interval():
    log = World().log(np.random.default_rng(0))
    assert evaluate(log, seed=1, resamples=100) == evaluate(log, seed=1, resamples=100)
    assert evaluate(log, seed=1, resamples=100) != evaluate(log, seed=2, resamples=100)


def test_a_small_effective_sample_is_reported():
    world, random = World(sharpness=9.0), np.random.default_rng(0)
    found = evaluate(world.log(random, users=100, rows=1), resamples=200)
    assert found.effective_rows < 100
    assert any("a few rows carry the estimates" in text for text in found.warnings)
    assert not evaluate(World().log(random), resamples=200).warnings


def test_a_new_policy_that_shows_what_the_old_one_never_does_is_reported():
    world, random = World(), np.random.default_rng(0)
    best = int(world.target.argmax())
    world.logged[best] = 0.0
    world.logged /= world.logged.sum()
    with np.errstate(divide="ignore"):
        found = evaluate(world.log(random), resamples=200)
    assert any("shows items that the logged one never shows" in text for text in found.warnings)


def test_clipping_is_reported_and_lowers_a_positive_reward():
    found = evaluate(World().log(np.random.default_rng(0)), clip=1.5, resamples=100)
    assert found.estimates["clipped"].value < found.estimates["ips"].value
    assert any("are cut to the weight 1.5" in text for text in found.warnings)


def test_rows_without_a_usable_propensity_are_left_out_and_reported(tmp_path):
    good = [f"u{i},0.5,0.5,{i % 2}" for i in range(200)]
    bad = ["a,,0.5,1", "b,nan,0.5,1", "c,0,0.5,1", "d,-0.2,0.5,1", "e,1.5,0.5,1"]
    found = estimate(write(tmp_path / "log.csv", [*good, *bad]))
    assert found.left_out == {"missing": 2, "zero": 1, "outside (0, 1]": 2} and found.rows == 200
    assert any("2 missing, 1 zero, 2 outside (0, 1]" in text for text in found.warnings)
    clean = estimate(write(tmp_path / "clean.csv", good))
    assert clean.estimates == found.estimates and clean.warnings == []
    assert "left out" in text_of(found) and "snips" in text_of(found)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "has no rows"),
        (["a,-1,0.5,1"], r"no row has a propensity in \(0, 1\]"),
        (["a,0.5,0,1"], "every weight is 0"),
        (["a,0.5,1.5,1"], "line 2: column 'target_propensity' holds 1.5; a chance lies in 0 to 1"),
        (["a,0.5,,1"], "column 'target_propensity' is empty or NaN"),
        (["a,0.5,0.5,nan"], "line 2: column 'reward' is empty or NaN"),
        (["a,0.5,0.5,inf"], "no finite number"),
        (["a,half,0.5,1"], "column 'propensity' holds 'half'"),
        ([",0.5,0.5,1"], "column 'user_id' is empty"),
    ],
)
def test_a_log_that_says_nothing_is_refused(tmp_path, rows, expected):
    with pytest.raises(DataError, match=expected):
        estimate(write(tmp_path / "log.csv", rows))


def test_columns_are_named_by_options(tmp_path):
    write(tmp_path / "log.csv", ["a,1,0.5,1"], header="who,p,q,click")
    with pytest.raises(DataError, match="no column 'user_id'"):
        estimate(build(OffPolicyRequest, {"log": tmp_path / "log.csv"}, "x"))
    names = {"user_column": "who", "propensity_column": "p", "target_column": "q", "reward_column": "click"}
    found = estimate(build(OffPolicyRequest, {"log": tmp_path / "log.csv", "resamples": 100, **names}, "x"))
    assert found.estimates["ips"].value == 0.5
    with pytest.raises(ConfigError, match="key 'clip'"):
        build(OffPolicyRequest, {"log": tmp_path / "log.csv", "clip": 0}, "x")


def test_resampled_means_are_those_of_the_bootstrap():
    values = np.random.default_rng(0).random((300, 2))
    means = resampled_means(values, seed=5)
    assert means.shape == (1000, 2)
    for column in range(2):
        low, high = np.quantile(means[:, column], [0.025, 0.975])
        assert (low, high) == pytest.approx(bootstrap_interval(values[:, column], seed=5))
        assert means[:, column].std() == pytest.approx(values[:, column].std() / math.sqrt(300), rel=0.1)
    with pytest.raises(DataError, match="at least one row"):
        resampled_means(np.empty((0, 2)))
