"""Raw files are found, generated or fetched, verified and hashed; the manifest follows their content."""

import gzip
import json
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recmodels.catalogue.entries import DatasetEntry, Source, load_catalogue
from recmodels.data.dump import load_dump, read_image_embeddings
from recmodels.data.raw_files import find_file, prepare_raw_files, stat_fingerprint
from recmodels.errors import InputError, MissingObject, PermanentFailure
from recmodels.io.digest import frame_digest
from recmodels.io.files import file_digest
from recmodels.raw.download import Patience
from recmodels.raw.formats.base import Role
from recmodels.raw.formats.registry import FORMATS, format_named
from recmodels.raw.lines import LineBlock, read_blocks
from recmodels.raw.manifest import RawManifest
from recmodels.raw.rejects import RejectLog

ONCE = Patience(attempts=1, first_wait=0.0)
REVIEW = {"reviewerID": "A", "asin": "B000000001", "overall": 5.0, "unixReviewTime": 10**9, "reviewText": "fine"}


def entry_of(**more: object) -> DatasetEntry:
    files = {Role.REVIEWS: "reviews.json.gz", Role.METADATA: "meta.json.gz", Role.IMAGE_FEATURES: "images.b"}
    sources = {
        "amazon2014": Source.model_validate({"files": files, "k_core": 1, **more}),
        "mmrec": Source(files={Role.INTERACTIONS: "x.inter.gz", Role.ITEMS: "items.tsv.gz"}, split="published"),
    }
    return DatasetEntry.model_validate({"key": "small", "title": "Small", "domain": "things", "sources": sources})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "reviews.json.gz").write_bytes(gzip.compress(json.dumps(REVIEW).encode() + b"\n"))
    (folder / "meta.json.gz").write_bytes(gzip.compress(b"{'asin': 'B000000001', 'title': 'one'}\n"))
    return folder


def test_the_manifest_describes_what_is_there_and_what_is_not(folder: Path) -> None:
    manifest = prepare_raw_files(entry_of(), folder)
    assert (manifest.dataset, manifest.format, manifest.absent) == ("small", "amazon2014", [Role.IMAGE_FEATURES])
    reviews = manifest.files[Role.REVIEWS]
    assert reviews.path == folder / "reviews.json.gz"
    assert reviews.sha256 == file_digest(reviews.path)
    assert reviews.size == reviews.path.stat().st_size
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json.gz", "reviews.json.gz"]


def test_editing_a_line_changes_the_data_version_and_touching_the_file_does_not(folder: Path) -> None:
    entry = entry_of()
    before = prepare_raw_files(entry, folder)
    tables = load_dump(before, entry)
    path = folder / "reviews.json.gz"
    os.utime(path, ns=(1, 1))
    touched = prepare_raw_files(entry, folder, previous=before)
    assert touched.digest == before.digest
    assert touched.files[Role.REVIEWS].mtime_ns == 1
    path.write_bytes(gzip.compress(json.dumps({**REVIEW, "reviewText": "fine!"}).encode() + b"\n"))
    edited = prepare_raw_files(entry, folder, previous=touched)
    assert edited.digest != before.digest
    assert frame_digest(load_dump(edited, entry).reviews) != frame_digest(tables.reviews)
    assert frame_digest(load_dump(edited, entry).items) == frame_digest(tables.items)


def test_the_place_of_the_files_does_not_matter(folder: Path, tmp_path: Path) -> None:
    manifest = prepare_raw_files(entry_of(), folder)
    moved = folder.rename(tmp_path / "elsewhere")
    assert prepare_raw_files(entry_of(), moved).digest == manifest.digest


def test_files_that_did_not_change_are_not_hashed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepare_raw_files(entry_of(), folder)
    monkeypatch.setattr("recmodels.raw.manifest.file_digest", lambda path: pytest.fail(f"hashed {path}"))
    assert prepare_raw_files(entry_of(), folder, previous=before) == before


def test_a_manifest_survives_its_file(folder: Path, tmp_path: Path) -> None:
    manifest = prepare_raw_files(entry_of(), folder)
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json(indent=2))
    assert RawManifest.load(tmp_path / "manifest.json") == manifest
    text = (tmp_path / "manifest.json").read_text()
    for name, content in (("empty.json", "{}"), ("cut.json", text[: len(text) // 2]), ("none.json", None)):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(
            MissingObject, match=rf"{name}: expected a manifest of raw files, found .*raw_dumps again\.$"
        ):
            RawManifest.load(tmp_path / name)


def test_plain_files_do_for_packed_ones_and_the_other_way_round(folder: Path) -> None:
    (folder / "reviews.json").write_bytes(gzip.decompress((folder / "reviews.json.gz").read_bytes()))
    (folder / "reviews.json.gz").unlink()
    manifest = prepare_raw_files(entry_of(), folder)
    assert manifest.files[Role.REVIEWS].path.name == "reviews.json"
    assert find_file(folder, "meta.json") == folder / "meta.json.gz"


def test_the_second_source_is_taken_where_the_first_is_incomplete(folder: Path) -> None:
    (folder / "meta.json.gz").unlink()
    (folder / "x.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n")
    (folder / "items.tsv").write_text("itemID\n0\n")
    assert prepare_raw_files(entry_of(), folder).format == "mmrec"


def test_missing_files_are_named_with_the_folder_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        prepare_raw_files(entry_of(), tmp_path)
    message = str(error.value)
    assert f"raw files of small in {tmp_path}" in message
    assert "reviews.json.gz, meta.json.gz (amazon2014) or x.inter.gz, items.tsv.gz (mmrec)" in message
    assert "an empty folder" in message
    assert "RAW_DIR=" in message
    with pytest.raises(InputError, match="no such folder"):
        prepare_raw_files(entry_of(), tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "found an empty one"), (gzip.compress(b"line\n" * 99, mtime=0)[:-9], "a complete gzip file")],
)
def test_damaged_files_are_named(folder: Path, content: bytes, message: str) -> None:
    (folder / "meta.json.gz").write_bytes(content)
    with pytest.raises(InputError, match=rf"meta\.json\.gz: expected .*{message}"):
        prepare_raw_files(entry_of(), folder)


def test_a_wrong_digest_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="expected sha256 00"):
        prepare_raw_files(entry_of(sha256={"reviews": "00"}), folder)


def test_the_fingerprint_follows_names_sizes_and_dates(folder: Path) -> None:
    entry = entry_of()
    first = stat_fingerprint(entry, folder)
    assert first == stat_fingerprint(entry, folder)
    os.utime(folder / "meta.json.gz", ns=(5, 5))
    touched = stat_fingerprint(entry, folder)
    (folder / "images.b").write_bytes(b"")
    assert len({first, touched, stat_fingerprint(entry, folder)}) == 3
    (folder / "reviews.json.gz").unlink()
    assert stat_fingerprint(entry, folder) is None


def test_files_come_from_the_addresses_of_the_catalogue(folder: Path, tmp_path: Path) -> None:
    urls = {
        Role.REVIEWS: ["/nowhere/reviews.json.gz", (folder / "reviews.json.gz").as_uri()],
        Role.METADATA: [str(folder / "meta.json.gz")],
    }
    manifest = prepare_raw_files(entry_of(urls=urls), tmp_path / "new")
    assert manifest.digest == prepare_raw_files(entry_of(), folder).digest
    assert manifest.files[Role.REVIEWS].path.parent == tmp_path / "new"


def test_nothing_is_fetched_where_that_is_not_wanted(folder: Path, tmp_path: Path) -> None:
    urls = {role: [str(folder / name)] for role, name in entry_of().sources["amazon2014"].files.items()}
    with pytest.raises(InputError, match="no such folder"):
        prepare_raw_files(entry_of(urls=urls), tmp_path / "new", fetch=False)


def test_a_mirror_is_enough_and_need_not_have_the_optional_files(folder: Path, tmp_path: Path) -> None:
    manifest = prepare_raw_files(entry_of(), tmp_path / "new", mirrors=[str(folder)])
    assert manifest.absent == [Role.IMAGE_FEATURES]
    with pytest.raises(PermanentFailure, match=r"reviews\.json\.gz cannot be fetched.*x\.inter\.gz cannot be fetched"):
        prepare_raw_files(entry_of(), tmp_path / "newer", mirrors=[str(tmp_path / "none")])


def test_a_mirror_of_the_second_source_is_found(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "x.inter.gz").write_bytes(gzip.compress(b"userID\titemID\tx_label\n0\t0\t0\n"))
    (mirror / "items.tsv.gz").write_bytes(gzip.compress(b"itemID\n0\n"))
    assert prepare_raw_files(entry_of(), tmp_path / "new", mirrors=[mirror.as_uri()]).format == "mmrec"


def test_an_interrupted_fetch_goes_on_with_the_files_that_are_missing(folder: Path, tmp_path: Path) -> None:
    names = entry_of().sources["amazon2014"].files
    entry = entry_of(urls={role: [str(folder / name)] for role, name in names.items()})
    with pytest.raises(PermanentFailure, match=r"images\.b cannot be fetched"):
        prepare_raw_files(entry, tmp_path / "new", patience=ONCE)
    (folder / "images.b").write_bytes(b"features")
    assert Role.IMAGE_FEATURES in prepare_raw_files(entry, tmp_path / "new", patience=ONCE).files


def test_a_refresh_fetches_what_changed_and_leaves_own_files_alone(folder: Path, tmp_path: Path) -> None:
    names = {role: name for role, name in entry_of().sources["amazon2014"].files.items() if role != Role.IMAGE_FEATURES}
    entry = entry_of(urls={role: [str(folder / name)] for role, name in names.items()})
    first = prepare_raw_files(entry, tmp_path / "new")
    assert prepare_raw_files(entry, tmp_path / "new", previous=first, refresh=True) == first
    (folder / "reviews.json.gz").write_bytes(gzip.compress(b"another\n"))
    assert prepare_raw_files(entry, tmp_path / "new", previous=first).digest == first.digest
    assert prepare_raw_files(entry, tmp_path / "new", previous=first, refresh=True).digest != first.digest
    own = prepare_raw_files(entry, folder)
    assert prepare_raw_files(entry, folder, refresh=True).digest == own.digest


def test_the_demo_generates_itself_once_even_in_two_runs_at_once(tmp_path: Path) -> None:
    entry = load_catalogue()["demo"]
    digests: list[str] = []
    threads = [
        threading.Thread(target=lambda: digests.append(prepare_raw_files(entry, tmp_path / "demo").digest))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 3
    assert len(set(digests)) == 1
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == sorted(
        entry.sources["amazon2014"].files.values()
    )


def test_a_file_that_is_replaced_while_it_is_hashed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced_meanwhile(path: Path) -> str:
        digest = file_digest(path)
        path.write_bytes(path.read_bytes() + gzip.compress(b"\n"))
        return digest

    monkeypatch.setattr("recmodels.raw.manifest.file_digest", replaced_meanwhile)
    with pytest.raises(InputError, match=r"(meta|reviews)\.json\.gz: expected .*replaced .*while it was hashed"):
        prepare_raw_files(entry_of(), folder)


@pytest.mark.parametrize("role", [Role.REVIEWS, Role.METADATA])
def test_a_file_that_is_not_the_one_that_was_hashed_is_not_read(folder: Path, role: Role) -> None:
    manifest = prepare_raw_files(entry_of(), folder)
    path = manifest.files[role].path
    other = path.read_bytes()
    other = other[:-1] + bytes([other[-1] ^ 1])
    for content in (other, gzip.compress(b"{}\n"), None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
            os.utime(path, ns=(1, 1))
        with pytest.raises(InputError, match=rf"{path.name}: expected .*sha256.* after it was hashed.*raw_dumps again"):
            load_dump(manifest, entry_of())


def test_a_file_that_was_only_touched_or_copied_is_read(folder: Path) -> None:
    manifest = prepare_raw_files(entry_of(), folder)
    for file in manifest.files.values():
        content = file.path.read_bytes()
        file.path.unlink()
        file.path.write_bytes(content)
        os.utime(file.path, ns=(1, 1))
    assert load_dump(manifest, entry_of()).reviews.height == 1


def test_a_file_that_is_replaced_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = prepare_raw_files(entry_of(), folder)

    def replaced_meanwhile(path: Path, log: RejectLog) -> Iterator[LineBlock]:
        yield from read_blocks(path, log)
        path.write_bytes(gzip.compress(b"another\n"))

    form = format_named("amazon2014")
    assert form.in_blocks is not None
    replacing = replace(form, in_blocks=replace(form.in_blocks, cut=replaced_meanwhile))
    monkeypatch.setitem(FORMATS, "amazon2014", replacing)
    with pytest.raises(InputError, match=r"reviews\.json\.gz: expected .*while it was read"):
        load_dump(manifest, entry_of())


def test_image_features_are_those_that_were_hashed(folder: Path) -> None:
    (folder / "images.b").write_bytes(b"B000000001" + struct.pack("<4096f", *range(4096)))
    manifest = prepare_raw_files(entry_of(), folder)
    items = load_dump(manifest, entry_of()).items
    assert read_image_embeddings(manifest, items).height == 1
    (folder / "images.b").write_bytes(b"B000000001" + struct.pack("<4096f", *range(1, 4097)))
    with pytest.raises(InputError, match=r"images\.b: expected .*after it was hashed"):
        read_image_embeddings(manifest, items)
