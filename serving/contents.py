"""What a Bento holds: ``models.json`` beside the service, written when it is packaged, read when it starts."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from aftersales.core.errors import ModelError
from aftersales.core.files import write_text
from aftersales.runtime.assignment import CHAMPION
from aftersales.runtime.decision import Prediction
from aftersales.runtime.manifest import verify
from aftersales.runtime.protocol import ModelInfo, RecommendRequest
from aftersales.runtime.recommender import Recommendations
from aftersales.runtime.settings import LabelInfo

CONTENTS = "models.json"
NO_TASKS = ("triage", "recommend")  # paths under /v1 that are no classifier's


class Packaged(BaseModel):
    """A model in the Bento; its version is the hash of its files, so that no other files can take its place."""

    model: ModelInfo

    @property
    def tag(self) -> str:
        """Its BentoML model, ``name:version``."""
        return f"aftersales-{self.model.name.replace('_', '-')}:{self.model.version}"

    def folder(self, stored: Path) -> Path:
        """Return our model folder inside the BentoML model at ``stored``, where BentoML keeps a file of its own."""
        return stored / "model"

    def check(self, stored: Path) -> Path:
        """Return the model folder after a check of every file.

        Raises:
            ModelError: a file is missing, altered or unknown, or the folder holds another model than was packaged.
        """
        folder = self.folder(stored)
        manifest = verify(folder)
        if (manifest.name, manifest.version) != (self.model.name, self.model.version):
            raise ModelError(
                f"{folder} holds {manifest.name} {manifest.version} where {self.model.name} {self.model.version} "
                "was packaged; build the Bento again"
            )
        return folder


class PackagedClassifier(Packaged):
    """A classifier, served at ``/v1/<task>`` with ``-`` for ``_``.

    Attributes:
        labels: every label it knows.
        example: what it answered to ``EXAMPLE_TEXTS`` when it was packaged.
    """

    labels: list[LabelInfo]
    example: list[Prediction]

    @property
    def task(self) -> str:
        """The name of its task."""
        return self.model.name

    @property
    def route(self) -> str:
        """The path of its endpoint."""
        return f"/v1/{self.task.replace('_', '-')}"


class PackagedRecommender(Packaged):
    """The recommender: a request of items that it knows, and its answer when it was packaged."""

    example_request: RecommendRequest
    example: Recommendations


class Contents(BaseModel):
    """Every model of the Bento.

    Attributes:
        classifiers: each with an endpoint.
        recommender: the champion; None where there is none.
        challengers: name -> another recommender, which answers only where an experiment says so.
    """

    classifiers: list[PackagedClassifier]
    recommender: PackagedRecommender | None = None
    challengers: dict[str, Packaged] = {}

    @property
    def models(self) -> list[Packaged]:
        """Classifiers and recommenders."""
        return [*self.classifiers, *self.recommenders.values()]

    @property
    def recommenders(self) -> dict[str, Packaged]:
        """Recommenders by the names that an experiment knows them by: the champion, then the challengers."""
        return {CHAMPION: self.recommender, **self.challengers} if self.recommender else {}

    def write(self, folder: Path) -> None:
        """Write ``models.json`` into ``folder``."""
        write_text(folder / CONTENTS, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Contents":
        """Read ``models.json`` from ``folder``.

        Raises:
            ModelError: there is none, which is so in a checkout, or it is unreadable.
        """
        try:
            return cls.model_validate_json((folder / CONTENTS).read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise ModelError(
                f"{folder / CONTENTS} cannot be read ({type(error).__name__}): the service runs from a built Bento "
                "only; build one with serving.package.build_bento and serve its tag"
            ) from None
