"""Where BentoML keeps its models and Bentos, decided in one place."""

import os
from pathlib import Path

from aftersales.core.paths import outputs

VARIABLE = "BENTOML_HOME"


def bentoml_home() -> Path:
    """Return BentoML's store: ``$BENTOML_HOME``, else ``outputs/bentoml`` of the project; create it if need be.

    The variable is set for this process and its children, because BentoML reads it once, when it first opens its
    store: call this before importing bentoml. BentoML's telemetry is turned off likewise.

    Raises:
        ConfigError: the variable is not set and the current folder is in no project.
    """
    home = Path(os.environ.get(VARIABLE) or outputs() / "bentoml").resolve()
    home.mkdir(parents=True, exist_ok=True)
    os.environ[VARIABLE] = str(home)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    return home
