"""How the settings of a model are searched: budget, patience, pruning, and spaces in place of the packaged ones."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Value = bool | int | float | str


class Parameter(BaseModel):
    """One setting that is searched: a range of numbers, or choices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: int | float | None = None
    """Least value of a range; whole numbers alone are searched where both ends are such."""
    high: int | float | None = None
    """Greatest value of a range."""
    log: bool = False
    """Whether to search on a logarithmic scale."""
    choices: tuple[Value, ...] = ()
    """The values to choose from, in place of a range."""
    grid: tuple[Value, ...] = ()
    """Values that the model's authors tried; their combinations are tried first."""
    is_list: bool = False
    """Whether the setting is a list that the model chooses from itself: a try lists one value, the list is the grid."""
    needs: str = ""
    """Property of `TrainingData` without which the setting has no effect, such as ``item_features``."""

    @model_validator(mode="after")
    def _is_range_or_choices(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("expected either choices or a range, found both")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("expected choices, or low below high")
        elif self.log and self.low <= 0:
            raise ValueError("expected low above 0 on a logarithmic scale")
        if outside := [value for value in self.grid if not self.holds(value)]:
            raise ValueError(f"expected a grid within the space, found {outside}")
        return self

    @property
    def told(self) -> str:
        """What is searched, in one line."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        return f"{self.low} to {self.high}" + (", logarithmic" if self.log else "")

    def holds(self, value: Any) -> bool:
        """Tell whether a value is among what is searched."""
        if self.choices or self.low is None or self.high is None:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    def with_value(self, value: Any) -> "Parameter":
        """
        Return the parameter, its range or choices widened where they lack a value.

        Raises
        ------
        ValueError
            If a range cannot hold it: it is no number, no whole one, or not above 0 on a logarithmic scale.

        Examples
        --------
        >>> Parameter(low=1, high=3).with_value(5).high
        5
        """
        if self.holds(value):
            return self
        if self.choices or self.low is None or self.high is None:
            return self.model_copy(update={"choices": (*self.choices, value)})
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        if not isinstance(value, int if whole else int | float) or (self.log and value <= 0):
            raise ValueError(f"a range from {self.low} to {self.high} cannot hold {value!r}")
        return self.model_copy(update={"low": min(self.low, value), "high": max(self.high, value)})


Space = dict[str, Parameter]
"""What is searched, by the dotted name of the setting, such as ``training.learning_rate``."""


class TuningConfig(BaseModel):
    """Settings of a search. The budget decides how far it goes; another budget goes on with what was tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(default=30, ge=1)
    """Most tries, those of the published grid included."""
    hours: float | None = Field(default=None, gt=0)
    """Most hours of all tries together, also over several runs; null for as long as the tries take."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search and of every training."""
    patience: int | None = Field(default=None, ge=0)
    """Patience of every try in place of the model's `training.patience`, of which 20 is the papers'."""
    epochs: int | None = Field(default=None, ge=1)
    """Most epochs of a try in place of the model's `training.epochs`."""
    startup_trials: int = Field(default=5, ge=1)
    """Tries before any is pruned, and before settings are sampled by what went well rather than at random."""
    warmup_epochs: int = Field(default=10, ge=0)
    """Epochs before a try may be pruned; it is where its best Recall@20 is below the median of the others' by then."""
    spaces: dict[str, Space] = Field(default_factory=dict[str, Space])
    """What is searched, by model, in place of the packaged space."""

    @property
    def of_every_try(self) -> dict[str, Any]:
        """The settings that every try has beside those that are searched, by dotted name."""
        named = {"training.patience": self.patience, "training.epochs": self.epochs}
        return {name: value for name, value in named.items() if value is not None}
