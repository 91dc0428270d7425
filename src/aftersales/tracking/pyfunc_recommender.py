"""The recommender as an MLflow pyfunc model, from code: nothing is pickled."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from aftersales.runtime.recommender import Recommender


class PyfuncRecommender(PythonModel):
    """Recommends after a column ``history`` of item ids joined by ``|``, oldest first."""

    def load_context(self, context: Any) -> None:
        """Load the exported model."""
        self.recommender = Recommender.load(Path(context.artifacts["folder"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row a history: ten item ids joined by ``|``, and what they rest on."""
        histories = [[item for item in row.split("|") if item] for row in model_input["history"]]
        found = [self.recommender.recommend(history, k=10) for history in histories]
        return pd.DataFrame(
            {
                "items": ["|".join(item.item_id for item in one.items) for one in found],
                "reason": [one.reason for one in found],
            }
        )


mlflow.models.set_model(PyfuncRecommender())
