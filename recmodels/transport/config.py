"""Settings of the augmentation by optimal transport."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TransportConfig(BaseModel):
    """How false negatives are weighed, transported and turned into added positives; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epsilon: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Entropic weight, in the unit of the cost: smaller follows the evidence more closely."""

    ratio: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Added pairs as a share of the distinct training pairs: q = round(ratio |D|)."""

    evidence: Literal["binary", "count", "similarity", "collaborative"] = "binary"
    """What the negative cost of a false negative is: 1, or how strongly the user's positives point to it."""

    neighbours: int | None = Field(default=10, ge=1)
    """Neighbours of an item that count, its self edge included, as in the item graph; null takes the whole table."""

    modality_weights: dict[str, float] = {"text": 0.9, "image": 0.1}
    """Weight of each item graph in the graded evidences; those of the graphs at hand are scaled to a sum of 1."""

    user_marginal: Literal["uniform", "deficit"] = "uniform"
    """Mass of a user: equal, or in proportion to how far the user's activity is below the target."""

    item_marginal: Literal["uniform", "popularity", "deficit"] = "uniform"
    """Mass of an item: equal, in proportion to its training popularity, or to how far that is below the target."""

    popularity_power: float = Field(default=1.0, allow_inf_nan=False)
    """Exponent of the item marginal `popularity`; 0.5 is its square root."""

    target_activity: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Training items a user should have, for the marginal `deficit`; null is the mean activity."""

    target_popularity: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Training users an item should have, for the marginal `deficit`; null is the mean popularity."""

    user_mass: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Mean mass of a user, the paper's a; null is the mean activity. Matters only with a relaxation."""

    item_mass: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Mean mass of an item, the paper's b; null is the mean popularity. Matters only with a relaxation."""

    relaxation: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Weight rho of the KL penalty on the marginals; null keeps them exact."""

    tolerance: float = Field(default=1e-8, gt=0, allow_inf_nan=False)
    """Largest marginal error, as a share of the mass."""

    max_iterations: int = Field(default=1000, ge=1)
    """Iterations after which the solver stops with a warning."""

    backend: Literal["structured", "cuda", "pot"] = "structured"
    """
    `structured` on the CPU; `cuda`, the same on a CUDA device where the scaling form serves, equal to rounding; or
    `pot` for the dense reference solver, which refuses problems that do not fit in memory.
    """


class PositivesConfig(TransportConfig):
    """How the positives that a training adds are chosen among the false negatives: by transport, or at random."""

    strategy: Literal["transport", "random"] = "transport"
    """`transport` takes the largest entries of the plan, `random` draws uniformly without replacement."""

    items_per_user: int | None = Field(default=None, ge=1)
    """Under `random`: draw for each user until the user has so many items; null draws `ratio` |D| pairs in all."""

    seed: int = Field(default=0, ge=0)
    """Of the draws under `random`."""
