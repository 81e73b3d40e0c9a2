"""What a person may want to watch while a model is trained: callbacks for `recmodels.training.trainer.fit`."""

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recmodels.errors import PermanentFailure
from recmodels.training.trainer import EpochRecord


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """
    A bar of the epochs with loss and validation Recall@20.

    Parameters
    ----------
    title
        What is trained.
    epochs
        The most epochs there can be.
    console
        Where to draw; None is the standard error stream.
    """

    def __init__(self, title: str, epochs: int, *, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(
                "loss {task.fields[loss]:.4f}  valid recall@20 {task.fields[recall]:.4f} (best {task.fields[best]})"
            ),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
        )
        self._task = self._progress.add_task(title, total=epochs, loss=float("nan"), recall=float("nan"), best="-")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, record: EpochRecord) -> None:
        """Show an epoch that is over."""
        self._progress.update(
            self._task,
            completed=record.epoch + 1,
            loss=record.loss,
            recall=record.valid_recall,
            best=f"epoch {record.best_epoch}",
        )


class TensorBoardLog(AbstractContextManager["TensorBoardLog"]):
    """
    TensorBoard event files of a training: loss, its parts, validation Recall@20, step size and seconds by epoch.

    Parameters
    ----------
    directory
        Where the event files go; one directory a training.

    Raises
    ------
    PermanentFailure
        If the package tensorboardX is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise PermanentFailure(
                "TensorBoard files need the package tensorboardX: install the extra `tensorboard`."
            ) from error
        self._writer: Any = SummaryWriter(str(directory))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def __call__(self, record: EpochRecord) -> None:
        """Write an epoch that is over."""
        scalars = {
            "loss": record.loss,
            **{f"loss/{name}": value for name, value in record.parts.items()},
            "valid/recall@20": record.valid_recall,
            "learning_rate": record.learning_rate,
            "seconds": record.seconds,
        }
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, record.epoch)
