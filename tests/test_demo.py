"""The main job as a user runs it, and the public sets, which stay outside the repository."""

import os
import subprocess
import sys

import pytest

from aftersales.corpora.public import load_public

MODULE = [sys.executable, "-c", "from aftersales.cli.main import main; main()"]


@pytest.mark.slow
def test_the_demo_goes_from_corpora_to_scored_messages(project):
    done = subprocess.run(
        [*MODULE, "demo"], capture_output=True, text=True, check=False, timeout=1800, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for task in ("intent", "sentiment", "complaint_cause", "recommendation"):
        assert f"champion of {task} is now version 1" in done.stdout, task
    assert "scored messages" in done.stdout and "recommended after" in done.stdout


@pytest.mark.public
@pytest.mark.parametrize(
    ("name", "counts", "labels"),
    [("online_shopping_10_cats", (49864, 6278, 6364), 2), ("smp2017_task1", (2298, 769, 667), 31)],
)
def test_public_sets_have_their_published_splits(name, counts, labels):
    data = load_public(name)
    assert tuple(len(part) for part in data.splits.values()) == counts
    assert len(data.task.label_names) == labels
