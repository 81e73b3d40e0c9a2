"""The catalogue: packaged data sets, and what a user lays over them."""

from pathlib import Path

import pytest

from recmodels.catalogue.entries import CATALOGUE_VARIABLE, load_catalogue
from recmodels.errors import InputError
from recmodels.raw.formats.base import OPTIONAL_ROLES
from recmodels.raw.formats.registry import FORMATS


def write(folder: Path, text: str) -> Path:
    path = folder / "catalogue.toml"
    path.write_text(text)
    return path


def test_the_packaged_data_sets_are_there() -> None:
    catalogue = load_catalogue()
    assert list(catalogue) == ["demo", "gift_cards", "baby", "sports", "clothing"]
    assert list(catalogue["baby"].sources) == ["amazon2014", "mmrec"]
    assert all(entry.key == key for key, entry in catalogue.items())


def test_what_is_not_generated_and_no_import_has_addresses_for_every_file() -> None:
    for entry in load_catalogue().values():
        for source_format, source in entry.sources.items():
            if not source.generated and source_format != "mmrec":
                assert set(source.urls) == set(source.files)
                assert all(url.startswith("https://") for urls in source.urls.values() for url in urls)


def test_a_user_adds_a_data_set_and_changes_one_value_of_another(tmp_path: Path, monkeypatch) -> None:
    text = """
        [mine]
        title = "Mine"
        domain = "things"
        sources.amazon2018.files = { reviews = "r.json" }
        [gift_cards.sources.amazon2018]
        split = "temporal"
        """
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(write(tmp_path, text)))
    changed, packaged = load_catalogue(), load_catalogue(write(tmp_path, ""))
    assert changed["mine"].sources["amazon2018"].k_core == 5
    source = packaged["gift_cards"].sources["amazon2018"]
    assert changed["gift_cards"].sources["amazon2018"] == source.model_copy(update={"split": "temporal"})
    assert changed["baby"] == packaged["baby"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[broken", "expected a readable TOML file"),
        ("demo = 3", "demo: expected a table"),
        ("[demo]\ncolour = 'red'", "demo: expected some of .*, found 'colour'"),
        ("[demo]\nknn_k = 0", "demo: .*knn_k: .*greater than or equal to 1"),
        ("[demoo]\nknn_k = 3", "demoo: .*found neither. Did you mean demo"),
        ("[demo.sources.amazon2014]\nk_cor = 3", r"amazon2014\.k_cor: no such setting \(Did you mean k_core\?\)"),
        (
            "[new]\ntitle = 'x'\ndomain = 'y'\n[new.sources.table]\nfiles.interactions = 'r'\ncolumns.usr = 'a'",
            r"found 'usr'\. Did you mean user\?[^{]*$",
        ),
        ("[new]\ntitle = 'x'\ndomain = 'y'", "new: .*sources: Field required"),
        (
            "[demo.sources.csv]\nfiles = { reviews = 'a' }",
            "'csv': expected one of amazon2014, .*, mmrec",
        ),
        ("[demo.sources.amazon2014]\nsplit = 'coin'", "'random', 'temporal', 'leave_last_out' or 'published'"),
        ("['../up']\ntitle = 'x'", r"catalogue .*catalogue\.toml, .*'\.\./up'.*expected a plain name.*Rename"),
        ("['$(id)']\ntitle = 'x'", r"catalogue .*catalogue\.toml.*expected a plain name.*found '\$\(id\)'"),
        (
            "[demo.sources.amazon2014.files]\nreviews = '../../etc/passwd'",
            r"catalogue\.toml, demo.*expected a plain name.*passwd",
        ),
        (
            "[demo.sources.amazon2014.files]\nreviews = 'a;rm'",
            r"catalogue\.toml, demo.*files.*expected a plain name.*'a;rm'",
        ),
        (
            "[new]\ntitle = 'x'\ndomain = 'y'\nsources.mmrec.files = { items = 'i' }",
            "mmrec needs a file `interactions`",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_catalogue(write(tmp_path, text))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_catalogue(tmp_path / "none.toml")


def test_interactions_are_never_optional() -> None:
    assert not OPTIONAL_ROLES & {form.interactions for form in FORMATS.values()}
