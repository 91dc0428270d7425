"""The command line: fast help, examples everywhere, and one clear line with exit code 2 for a user's mistake."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from aftersales.cli.main import cli, main

MODULE = [sys.executable, "-c", "from aftersales.cli.main import main; main()"]


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["aftersales", *arguments])
    code = 0
    try:
        main()
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.err if code else captured.out


def test_help_answers_within_half_a_second_and_loads_nothing_heavy():
    code = (
        "import sys; from aftersales.cli.main import cli\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    best = min(_seconds([*MODULE, "--help"]) for _ in range(3))
    assert best < 0.5


def _seconds(command):
    """Processor time, which is the waiting time on an idle machine and says the same on a busy one."""
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_examples_that_start_with_its_name(name):
    shown = CliRunner().invoke(cli, [name, "--help"]).output
    assert "Example" in shown and f"aftersales {name}" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "configs/intents.yaml"], "did you mean"),
        (["train", "configs/intent.yaml", "fit.epoch=3"], "unknown key 'fit.epoch'; did you mean 'fit.epochs'?"),
        (["train", "configs/intent.yaml", "data.path=none.csv"], "none.csv does not exist"),
        (["train", "configs/intent.yaml", "fit.encoder=./none"], "none does not exist"),
        (["train", "configs/intent.yaml", "recipe=clasify"], "did you mean 'classify'"),
        (["check", "intents"], "did you mean 'intent'"),
        (["check", "sentiment", "data.path=configs"], "configs is a folder; name a file in it"),
        (["check", "intent", "limit=3"], "not 'limit=3'; write data.KEY=VALUE"),
        (["check", "configs/recommend.yaml"], "a config of the recipe 'recommend'"),
        (["score"], "give either a TEXT or --file"),
        (["score", "--file", "a.csv"], "--file needs --out"),
        (["score", "你好"], "no classifier is champion yet"),
        (["score", " ", "--model", "none"], "is not a model folder"),
        (["score", "你好", "--task", "intent"], "task 'intent' has no champion"),
        (["promote", "nothing"], "no run has the id or name 'nothing'"),
        (["package"], "no champion to package"),
        (["trian"], "No such command"),
    ],
)
def test_a_users_mistake_is_one_line_and_code_2(project, monkeypatch, capsys, arguments, expected):
    code, shown = run(monkeypatch, capsys, *arguments)
    assert code == 2 and expected in shown
    assert "Traceback" not in shown
    assert not (project / "outputs" / "models").exists()


def test_a_store_that_cannot_be_reached_is_named(project, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/none/mlflow.db")
    code, shown = run(monkeypatch, capsys, "champions")
    assert code == 2 and "experiment store sqlite:////proc/none/mlflow.db cannot be used" in shown


def test_a_new_task_from_a_csv_file_is_whole(project, monkeypatch, capsys, tmp_path):
    rows = [f"{i},第{i}次催一下尽快处理,high\n" for i in range(40)] + [
        f"{i},第{i}个不着急慢慢来,low\n" for i in range(40, 80)
    ]
    table = tmp_path / "urgency.csv"
    table.write_text("no,message,level\n" + "".join(rows), encoding="utf-8")
    arguments = ["new-task", "urgency", str(table), "--text-column", "message", "--label-column", "level"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert "aftersales train" in result.output
    shown = CliRunner().invoke(cli, ["check", "urgency"], catch_exceptions=False).output
    assert "high" in shown and "fingerprint" in shown
    code, error = run(monkeypatch, capsys, *arguments)
    assert code == 2 and "exists already" in error


@pytest.mark.parametrize(
    ("name", "rows", "options", "expected"),
    [
        ("Über", "", (), "task name 'Über' is not made of lower-case letters"),
        ("topic", "x,a|b\n", (), "label 'a|b' holds something else than letters"),
        ("topic", ",low\n", (), "--skip-bad-rows"),
        ("topic", ",low\n", ("--skip-bad-rows",), None),
        ("triage", "", (), "the name 'triage' is taken"),
    ],
)
def test_what_makes_no_task_is_said_and_nothing_is_written(
    project, monkeypatch, capsys, tmp_path, name, rows, options, expected
):
    table = tmp_path / "rows.csv"
    good = "".join(f"第{i}次催一下,high\n第{i}个慢慢来,low\n" for i in range(40))
    table.write_text(f"text,label\n{good}{rows}", encoding="utf-8")
    code, shown = run(monkeypatch, capsys, "new-task", name, str(table), *options)
    assert (code == 2 and expected in shown) if expected else "1 bad rows" in shown
    assert (project / "data" / "tasks" / name).exists() == (expected is None)


def test_running_as_a_process_gives_code_2():
    result = subprocess.run(
        [*MODULE, "train", "nowhere.yaml"], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert result.returncode == 2 and result.stderr.startswith("error: config file nowhere.yaml does not exist")
