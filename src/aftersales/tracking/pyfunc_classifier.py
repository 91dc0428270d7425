"""The classifier as an MLflow pyfunc model, from code: nothing is pickled."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from aftersales.runtime.classifier import Classifier


class PyfuncClassifier(PythonModel):
    """Scores a column ``text``; answers the labels, the confidence and the decision."""

    def load_context(self, context: Any) -> None:
        """Load the exported model."""
        self.classifier = Classifier.load(Path(context.artifacts["folder"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row a text: label (several joined by ``|``), confidence, decision and reason."""
        return pd.DataFrame([one.flat() for one in self.classifier.predict(model_input["text"].tolist(), top_k=1)])


mlflow.models.set_model(PyfuncClassifier())
