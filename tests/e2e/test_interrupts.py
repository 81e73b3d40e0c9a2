"""SIGINT and SIGTERM at any moment of a run: it stops soon, says how to go on, and the same command then finishes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recmodels.raw.demo import write_demo_dump

SECONDS = 15.0
"""In which a run has to stop on a machine with much else to do; with nothing else to do it takes less than 5."""
TOLD = "interrupted; run the same command again to go on"
TRAINING = "[demo.models.lightgcn.training]\nepochs = {epochs}\npatience = 100000\n"


def _heard() -> None:
    """Undo what is inherited in the background: there SIGINT is ignored, and Dagster has SIGTERM handled likewise."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class Command:
    """`recmodels run` as a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path, root: Path, epochs: int) -> None:
        catalogue = folder / f"{root.name}.toml"
        catalogue.write_text(TRAINING.format(epochs=epochs))
        environment = os.environ | {"RECMODELS_DATA": str(root), "RECMODELS_CATALOGUE": str(catalogue)}
        environment.pop("DAGSTER_HOME", None)
        arguments = ["run", "--raw-dir", str(folder / "raw"), "--models", "lightgcn", "--seeds", "0"]
        self.root = root
        self.log = root.with_suffix(".log")
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "pipelines.cli", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_heard,
            )

    def output(self) -> str:
        return self.log.read_text()

    def wait_until(self, reached: Callable[["Command"], bool]) -> None:
        while not reached(self):
            assert self.process.poll() is None, self.output()
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Ctrl-C goes to all processes of a terminal, `kill` to one."""
        (os.killpg if number == signal.SIGINT else os.kill)(self.process.pid, number)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupts")
    write_demo_dump(folder / "raw", n_users=60, n_items=40)
    return folder


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Iterator[Callable[[int], Command]]:
    commands: list[Command] = []

    def started(epochs: int) -> Command:
        commands.append(Command(folder, tmp_path / "data", epochs))
        return commands[-1]

    yield started
    for command in commands:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()


def _tables(root: Path) -> dict[str, bytes]:
    files = [file for file in (root / "tables").rglob("*.parquet") if not file.name.startswith(".")]
    named = {file.relative_to(root).as_posix(): file.read_bytes() for file in files}
    return {name: content for name, content in named.items() if "/pipeline_status/" not in name}


def _begun(command: Command) -> bool:
    """Tell whether the command handles SIGTERM yet: before that it is Python's interpreter that starts."""
    (caught,) = re.findall(r"SigCgt:\t(\w+)", Path(f"/proc/{command.process.pid}/status").read_text())
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def _shows(text: str) -> Callable[[Command], bool]:
    return lambda command: text in command.output()


def _trains(command: Command) -> bool:
    """Tell whether a state is whole: one that is being written has a name with a dot before it until then."""
    return any(command.root.glob("training_state/**/epoch-*/*.safetensors"))


def _interrupt(command: Command, moment: Callable[[Command], bool], number: signal.Signals) -> None:
    command.wait_until(moment)
    sent = time.monotonic()
    command.send(number)
    status = command.process.wait(SECONDS * 4)
    assert time.monotonic() - sent < SECONDS
    output = command.output()
    assert status == 128 + number, output
    assert output.count(TOLD) == 1
    assert output.rstrip().endswith(TOLD)
    for word in ("Traceback", "Error", "error:", "Exception"):
        assert word not in output


@pytest.mark.slow
def test_signals_at_any_moment_stop_a_run_and_the_same_command_finishes_it(
    start: Callable[[int], Command], folder: Path, tmp_path: Path
) -> None:
    moments: tuple[tuple[Callable[[Command], bool], signal.Signals], ...] = (
        (_begun, signal.SIGINT),  # during the imports
        (_begun, signal.SIGTERM),
        (_shows("everything under"), signal.SIGINT),
        (_shows("prepare demo"), signal.SIGTERM),  # before Dagster handles signals
        (_shows("\N{CHECK MARK} items"), signal.SIGINT),  # between steps, or in one
        (_shows("\N{CHECK MARK} user_profiles"), signal.SIGTERM),
        (_shows("train demo|0"), signal.SIGINT),  # between jobs
        (_shows("\N{CHECK MARK} checkpoint/lightgcn"), signal.SIGTERM),
    )
    for moment, number in moments:
        _interrupt(start(12), moment, number)
    finished = start(12)
    assert finished.process.wait() == 0, finished.output()
    undisturbed = Command(folder, tmp_path / "undisturbed", 12)
    assert undisturbed.process.wait() == 0, undisturbed.output()
    assert _tables(finished.root) == _tables(undisturbed.root)
    assert not list((undisturbed.root / "staging").glob("*"))


@pytest.mark.slow
def test_a_training_that_is_interrupted_keeps_its_state_and_a_second_signal_ends_it_at_once(
    start: Callable[[int], Command],
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the first leaves nothing that the second run would wait for
        command = start(1_000_000)
        _interrupt(command, lambda command: "train demo|0" in command.output() and _trains(command), number)
        assert _trains(command)
    command = start(1_000_000)
    command.wait_until(_shows("train demo|0"))
    command.send(signal.SIGTERM)
    command.send(signal.SIGTERM)
    sent = time.monotonic()
    assert command.process.wait(SECONDS) == 128 + signal.SIGTERM
    assert time.monotonic() - sent < SECONDS / 5
    assert command.output().count(TOLD) == 1
