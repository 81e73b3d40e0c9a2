"""What the callbacks show and write."""

import io
import struct
from pathlib import Path

import pytest
from rich.console import Console

from recmodels.errors import PermanentFailure
from recmodels.training.progress import ProgressBar, TensorBoardLog
from recmodels.training.trainer import EpochRecord

RECORDS = [
    EpochRecord(
        epoch=epoch,
        loss=0.75 - epoch / 8,
        parts={"bpr": 0.5, "penalty": 0.25 - epoch / 8},
        valid_recall=0.1 + epoch / 100,
        best_epoch=epoch,
        learning_rate=0.001,
        training_seconds=1.0,
        seconds=1.5,
    )
    for epoch in range(2)
]


def test_the_bar_shows_epoch_loss_and_recall() -> None:
    text = io.StringIO()
    with ProgressBar("lightgcn", 10, console=Console(file=text, width=140, force_terminal=True)) as bar:
        for record in RECORDS:
            bar(record)
    shown = text.getvalue()
    assert "lightgcn" in shown
    assert "2/10" in shown
    assert "loss 0.6250" in shown
    assert "recall@20 0.1100 (best epoch 1)" in shown


def test_event_files_hold_every_scalar(tmp_path: Path) -> None:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    with TensorBoardLog(tmp_path) as log:
        for record in RECORDS:
            log(record)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    found = {}
    while content:
        # A record: length (8 bytes), checksum (4), message, checksum (4).
        (length,) = struct.unpack("<Q", content[:8])
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    assert found[("loss", 1)] == pytest.approx(0.625)
    assert found[("loss/penalty", 0)] == pytest.approx(0.25)
    assert found[("valid/recall_20", 1)] == pytest.approx(0.11)
    assert found[("learning_rate", 1)] == pytest.approx(0.001)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(PermanentFailure, match="extra `tensorboard`"):
        TensorBoardLog(tmp_path)
