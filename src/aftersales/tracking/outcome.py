"""What every training recipe returns: enough for a table, for the gate and for the next command."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """A finished training run.

    Attributes:
        task: the task's name, or ``recommendation``.
        metric: the headline metric.
        figure: its value on test with the 95 % interval.
        floor: the floor's value on the same rows.
        parts: what else belongs beside the figure, such as the encoder's without its lexical half.
        seconds: from reading the data to the evaluated model.
        folder: the model folder.
        run_id: the run in the experiment store.
    """

    task: str
    metric: str
    figure: str
    floor: str
    seconds: float
    folder: Path
    run_id: str
    parts: str = ""

    def report(self) -> str:
        """Return the closing lines of a training command."""
        return (
            f"{self.task}: {self.metric} {self.figure} on test, floor {self.floor}{self.parts}; "
            f"trained and measured in {self.seconds:.0f} s\n"
            f"model: {self.folder}\n"
            f"run:   {self.run_id}  (make it the champion: aftersales promote {self.run_id})"
        )
