"""Configuration: errors name the key and the nearest valid one; every shipped config is valid."""

from pathlib import Path

import pytest

from aftersales.cli.training import RECIPES, recipe
from aftersales.core.config import apply_overrides, build, load, read_yaml
from aftersales.core.errors import ConfigError
from aftersales.core.paths import project_root

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def config_type(values):
    return getattr(recipe(values["recipe"]), RECIPES[values["recipe"]])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid_and_starts_with_its_command(path):
    values = read_yaml(path)
    load(config_type(values), path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and f"aftersales train configs/{path.name}" in first


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("fit.epoch=3", "unknown key 'fit.epoch'; did you mean 'fit.epochs'?"),
        ("fitt.epochs=3", "unknown key 'fitt'; did you mean 'fit'?"),
        ("epochs=3", "unknown key 'epochs'; did you mean 'fit.epochs'?"),
        ("fit.epochs=many", "key 'fit.epochs'"),
        ("fit.epochs=0", "key 'fit.epochs'"),
        ("fit.epochs", "not of the form key=value"),
        ("recipe.x=1", "is a value, not a section"),
        ("data.public=smp2017_task1", "either data.task or data.public"),
    ],
)
def test_wrong_overrides_name_the_key_and_the_way_out(override, expected):
    path = project_root() / "configs" / "intent.yaml"
    values = read_yaml(path)
    with pytest.raises(ConfigError, match=r".*") as error:
        build(config_type(values), apply_overrides(values, [override]), str(path))
    assert expected in str(error.value)


def test_missing_file_names_the_nearest_one():
    with pytest.raises(ConfigError, match=r"did you mean .*intent\.yaml"):
        read_yaml(project_root() / "configs" / "intents.yaml")


def test_a_list_is_not_a_config(tmp_path):
    (tmp_path / "a.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"must hold `key: value` lines"):
        read_yaml(tmp_path / "a.yaml")


def test_overrides_reach_nested_keys():
    path = project_root() / "configs" / "intent.yaml"
    values = read_yaml(path)
    config = build(config_type(values), apply_overrides(values, ["fit.seed=7", "data.limit=100"]), str(path))
    assert (config.fit.seed, config.data.limit) == (7, 100)


@pytest.mark.parametrize(("written", "meant"), [("no", "no"), ("on", "on"), ("true", True), ("3", 3), ("0.5", 0.5)])
def test_a_label_may_be_called_no(written, meant):
    assert apply_overrides({}, [f"data.label_map.good={written}"])["data"]["label_map"]["good"] == meant
