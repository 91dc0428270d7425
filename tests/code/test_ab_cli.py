"""The command `aftersales ab`: thin, with examples, and one clear line for a user's mistake."""

import csv
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from aftersales.cli.ab import ab
from aftersales.cli.main import cli, main

CONFIG = str(Path(__file__).parents[2] / "configs" / "ab" / "recommendations.yaml")


def shown(*arguments):
    return CliRunner().invoke(cli, ["ab", *map(str, arguments)], catch_exceptions=False).output


def failed(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["aftersales", "ab", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and "Traceback" not in captured.err
    return captured


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.csv"
    users = tmp_path / "users.csv"
    users.write_text("user_id\n" + "".join(f"u{i}\n" for i in range(600)), encoding="utf-8")
    shown("assign", CONFIG, "--file", users, "--out", tmp_path / "assigned.csv")
    with (tmp_path / "assigned.csv").open(encoding="utf-8") as stream, path.open("w", encoding="utf-8") as out:
        out.write("user_id,variant,returned\n")
        for number, row in enumerate(csv.DictReader(stream)):
            returned = number % (3 if row["variant"] == "today" else 6) == 0
            out.write(f"{row['user_id']},{row['variant']},{int(returned)}\n")
    return path


@pytest.mark.parametrize("name", sorted(ab.commands))
def test_every_command_has_examples_that_start_with_its_name(name):
    assert f"Examples:\n    aftersales ab {name}" in shown(name, "--help")


def test_users_and_files_of_users_get_the_same_variant(tmp_path):
    lines = dict(line.split("\t") for line in shown("assign", CONFIG, "U1", "U2", "U3", "U4").splitlines())
    table = tmp_path / "users.jsonl"
    table.write_text("".join(json.dumps({"no": i, "user_id": f"U{i}"}) + "\n" for i in range(1, 5)), encoding="utf-8")
    assert "written" in shown("assign", CONFIG, "--file", table, "--out", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["user_id"]: row["variant"] for row in rows} == lines and set(lines.values()) == {
        "today",
        "return-aware",
    }
    assert [row["no"] for row in rows] == [1, 2, 3, 4]


def test_users_outside_the_experiment_have_no_variant(tmp_path):
    config = tmp_path / "none.yaml"
    config.write_text(Path(CONFIG).read_text(encoding="utf-8").replace("traffic: 1.0", "traffic: 0.0"))
    assert shown("assign", config, "U1") == "U1\t-\n"
    (tmp_path / "users.csv").write_text("user_id\nU1\n", encoding="utf-8")
    assert "(not in the experiment)" in shown(
        "assign", config, "--file", tmp_path / "users.csv", "--out", tmp_path / "out.csv"
    )
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines() == ["user_id,variant", "U1,"]


def test_a_plan_is_printed_and_dumped():
    assert "62,468: control 31,234, treatment 31,234" in shown("plan", "--baseline", 0.05, "--lift", 0.1)
    dumped = json.loads(shown("plan", "--deviation", 1, "--users", 1000, "--share", 0.8, "--share", 0.2, "--json"))
    assert dumped["users_each"] == [800, 200] and dumped["lift"] is None


def test_a_result_is_printed_and_dumped(events):
    arguments = ("read", events, "--config", CONFIG, "--metric", "returned:any", "--planned-users", 600)
    report = json.loads(shown(*arguments, "--json"))
    (found,) = report["comparisons"]
    assert (found["kind"], found["variant"], found["verdict"]) == ("proportion", "return-aware", "lower")
    text = shown(*arguments)
    assert "sample ratio: p =" in text and "lower" in text and "fixed horizon" in text


def test_a_mismatch_is_printed_and_ends_with_code_2(events, monkeypatch, capsys):
    lines = events.read_text(encoding="utf-8").splitlines()
    events.write_text(
        "\n".join(line for i, line in enumerate(lines) if ",today," not in line or i % 2), encoding="utf-8"
    )
    arguments = ("read", events, "--config", CONFIG, "--metric", "returned")
    captured = failed(monkeypatch, capsys, *arguments)
    assert "MISMATCH" in captured.out and "verdict" not in captured.out
    assert captured.err.startswith("error: sample ratio mismatch")
    assert "verdict" in shown(*arguments, "--despite-mismatch")


def test_a_log_is_estimated(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user_id,p,target_propensity,reward\n" + "u1,0.5,1,1\nu2,0.5,0,0\n" * 300, encoding="utf-8")
    arguments = ("offpolicy", log, "--propensity-column", "p", "--resamples", 100)
    assert json.loads(shown(*arguments, "--json"))["estimates"]["snips"]["value"] == 1.0
    assert "effective sample 300 rows" in shown(*arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["assign", "none.yaml", "u"], "none.yaml does not exist"),
        (["assign", CONFIG], "give either USERs, or --file with --out"),
        (["assign", CONFIG, "--file", "a.csv"], "give either USERs, or --file with --out"),
        (["assign", CONFIG, "u", "--name", "none"], "there is no experiment 'none'"),
        (["assign", CONFIG, ""], "the user id is empty"),
        (["plan", "--baseline", "0.1"], "give an effect"),
        (["plan", "--baseline", "2", "--lift", "0.1"], "ab plan: key 'baseline'"),
        (["plan", "--pilot", "none.csv", "--metric", "spend", "--users", "9"], "none.csv does not exist"),
        (["read", "none.csv", "--metric", "spend", "--control", "a"], "none.csv does not exist"),
        (["read", "none.csv", "--control", "a"], "key 'metric' is required"),
        (["offpolicy", "none.csv"], "none.csv does not exist"),
        (["offpolicy", "none.csv", "--clip", "-1"], "ab offpolicy: key 'clip'"),
    ],
)
def test_a_users_mistake_is_one_line_and_code_2(tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in failed(monkeypatch, capsys, *arguments).err


def test_files_of_users_that_cannot_be_assigned_are_refused(tmp_path, monkeypatch, capsys):
    table = tmp_path / "users.csv"
    for text, out, expected in (
        ("user_id\nu\n", "users.csv", "is the input file"),
        ("user_id,variant\nu,x\n", "out.csv", "has a column 'variant'"),
        ('user_id\n""\n', "out.csv", "column 'user_id' is empty"),
        ("id\nu\n", "out.csv", "no column 'user_id'"),
    ):
        table.write_text(text, encoding="utf-8")
        captured = failed(monkeypatch, capsys, "assign", CONFIG, "--file", table, "--out", tmp_path / out)
        assert expected in captured.err and not (tmp_path / "out.csv").exists()
