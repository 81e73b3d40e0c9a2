"""What a calibration tries."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

from recmodels.ranking.config import Normalisation

CALIBRATED = "calibrated/"
"""What the name of a model's calibrated form begins with."""

EvidenceName = Literal["co_users", "ease", "text_graph", "image_graph"]


class CalibrationConfig(BaseModel):
    """Settings of a calibration. Strengths and length of the shortlist are chosen on the validation rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evidence: tuple[EvidenceName, ...] = Field(default=("co_users",), min_length=1)
    """What speaks for an item, each with a strength of its own; see `recmodels.calibration.evidence`."""
    strengths: tuple[NonNegativeFloat, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
    """Strengths to try beside 0, which leaves the ranking as it is."""
    shortlists: tuple[PositiveInt, ...] = Field(default=(50, 100, 200), min_length=1)
    """Numbers of best items within which the ranking may change, to try."""
    normalisation: Normalisation = "shortlist"
    """Whether the evidence of a user has mean 0 and deviation 1 over the shortlist or over all items (`row`)."""
    shrinkage: float = Field(default=0.0, ge=0)
    """Term in the denominator of the co-users' cosine."""
    ease_penalty: float = Field(default=200.0, gt=0)
    """Penalty of EASE where its weights are evidence."""


def calibrated(model: str) -> str:
    """Return the name of a model's calibrated form, as in leaderboards."""
    return CALIBRATED + model
