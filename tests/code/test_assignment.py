"""Assignment of users to variants: by weight, the same for ever, moved by a ramp-up only into what grows."""

import math
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from scipy import stats

from aftersales.core.config import build, load
from aftersales.core.errors import ConfigError, DataError
from aftersales.runtime.assignment import Assigner, Experiment, Experiments

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "ab").glob("*.yaml"))
USERS = [f"用户{number}" for number in range(20_000)]


def experiment(name="menu", salt="1", traffic=1.0, **weights):
    variants = [{"name": variant, "weight": weight} for variant, weight in weights.items()]
    values = {"name": name, "salt": salt, "control": next(iter(weights)), "traffic": traffic, "variants": variants}
    return build(Experiment, values, "test")


def assigned(one):
    assigner = Assigner(one)
    return [assigner.variant(user) for user in USERS]


def moves(before, after):
    return Counter((old, new) for old, new in zip(assigned(before), assigned(after), strict=True) if old != new)


def test_an_assignment_never_changes_between_releases():
    assigner = Assigner(experiment(control=0.5, treatment=0.5))
    dealt = "".join(assigner.variant(f"U{number:06d}")[0] for number in range(40))
    assert dealt == "ttcctctctcttctcctcttcttcccttttctttccttcc"


def test_shares_are_the_weights_whatever_their_order():
    weights = {"control": 0.5, "a": 0.3, "b": 0.15, "c": 0.05, "off": 0.0}
    dealt = assigned(experiment(**weights))
    counts = Counter(dealt)
    assert counts["off"] == 0
    shown = [name for name in weights if weights[name]]
    expected = [weights[name] * len(USERS) for name in shown]
    assert stats.chisquare([counts[name] for name in shown], expected).pvalue > 0.001
    assert dealt == assigned(experiment(**dict(reversed(weights.items()))).model_copy(update={"control": "control"}))


@pytest.mark.parametrize("other", [{"name": "banner"}, {"salt": "2"}])
def test_experiments_and_salts_assign_independently(other):
    one, two = assigned(experiment(a=0.5, b=0.3, c=0.2)), assigned(experiment(a=0.5, b=0.3, c=0.2, **other))
    table = Counter(zip(one, two, strict=True))
    observed = [[table[row, column] for column in "abc"] for row in "abc"]
    assert stats.chi2_contingency(observed).pvalue > 0.001


def test_traffic_and_variant_are_assigned_independently():
    whole, half = assigned(experiment(a=0.5, b=0.5)), assigned(experiment(a=0.5, b=0.5, traffic=0.5))
    table = Counter((variant, inside is not None) for variant, inside in zip(whole, half, strict=True))
    observed = [[table[variant, inside] for inside in (True, False)] for variant in "ab"]
    assert stats.chi2_contingency(observed).pvalue > 0.001
    assert all(inside in (None, variant) for variant, inside in zip(whole, half, strict=True)), "nobody is moved"


def test_a_ramp_up_moves_users_only_into_the_treatment():
    shares = (0.0, 0.01, 0.05, 0.2, 0.5, 0.9, 1.0)
    steps = [experiment(control=1 - share, treatment=share) for share in shares]
    for before, after in pairwise(steps):
        assert set(moves(before, after)) == {("control", "treatment")}


def test_among_several_variants_only_the_one_that_grows_gains_users():
    before = experiment(control=0.6, a=0.2, b=0.2)
    grown = experiment(control=0.45, a=0.4, b=0.15)  # control and b keep their ratio
    assert {new for _, new in moves(before, grown)} == {"a"}
    both = experiment(control=0.2, a=0.5, b=0.3)
    assert not {move for move in moves(before, both) if move[1] == "control"}, "nobody goes back to control"


def test_raising_the_traffic_only_adds_users():
    steps = [experiment(control=0.5, treatment=0.5, traffic=share) for share in (0.0, 0.1, 0.6, 1.0)]
    for before, after in pairwise(steps):
        assert set(moves(before, after)) == {(None, "control"), (None, "treatment")}
    inside = len(USERS) - assigned(steps[1]).count(None)
    assert abs(inside - 0.1 * len(USERS)) < 4 * math.sqrt(0.09 * len(USERS))


@pytest.mark.parametrize("user", ["", None])
def test_a_request_without_a_user_is_refused(user):
    with pytest.raises(DataError, match="user id is empty"):
        Assigner(experiment(a=0.5, b=0.5)).variant(user)


@pytest.mark.parametrize("user", ["用户", "\ud800", "a\x1fb", "x" * 10_000])
def test_any_text_may_be_a_user(user):
    assert Assigner(experiment(a=0.5, b=0.5)).variant(user) in "ab"


VARIANTS = [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.5}]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"variants": [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.6}]}, "'menu' sum to 1.1; they must"),
        ({"variants": [{"name": "a", "weight": 0.5}, {"name": "a", "weight": 0.5}]}, "lists the variant 'a' twice"),
        ({"variants": [{"name": "a", "weight": 1.5}, {"name": "b", "weight": -0.5}]}, "weight"),
        ({"variants": [{"name": "a", "weight": math.nan}, {"name": "b", "weight": 1}]}, "weight"),
        ({"variants": VARIANTS[:1]}, "variants"),
        ({"control": "aa"}, "control 'aa' of experiment 'menu' is none of its variants"),
        ({"traffic": 1.2}, "traffic"),
        ({"name": "a b"}, "name"),
        ({"salt": "a\x1fb"}, "salt"),
        ({"wieght": 1}, "unknown key 'experiments.0.wieght'"),
    ],
)
def test_a_wrong_experiment_is_named(changed, expected):
    good = {"name": "menu", "salt": "1", "control": "a", "variants": VARIANTS}
    assert build(Experiments, {"experiments": [good]}, "file").experiment().name == "menu"
    with pytest.raises(ConfigError) as error:
        build(Experiments, {"experiments": [good | changed]}, "file")
    assert expected in str(error.value)


def test_experiments_are_found_by_unique_names():
    one = {"name": "menu", "salt": "1", "control": "a", "variants": VARIANTS}
    with pytest.raises(ConfigError, match="lists the experiment 'menu' twice"):
        build(Experiments, {"experiments": [one, one]}, "file")
    both = build(Experiments, {"experiments": [one, one | {"name": "banner"}]}, "file")
    assert both.experiment("banner").name == "banner"
    with pytest.raises(ConfigError, match="did you mean 'banner'"):
        both.experiment("baner")
    with pytest.raises(ConfigError, match="name one of the experiments: banner, menu"):
        both.experiment()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_experiment_is_valid_and_starts_with_its_command(path):
    assert load(Experiments, path).experiments
    assert path.read_text(encoding="utf-8").startswith(f"# aftersales ab assign configs/ab/{path.name}")


def test_assigning_imports_neither_numpy_nor_scipy():
    code = "import sys, aftersales.runtime.assignment; assert not {'numpy', 'scipy', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
