"""What the explorer's API answers, what it refuses, and that it shows what is current."""

import json
import re
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import torch
from explored import ATTACK, COLD, PICTURE, Explored, rankers, tables
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from assets.support.links import explorer_link
from pipelines.explorer.app import POLICY, POLICY_WITH_PICTURES, explorer_app, own_names
from pipelines.explorer.endpoints import ENDPOINTS
from pipelines.explorer.fresh import Fresh
from pipelines.explorer.results import SECONDS, Results
from recmodels.errors import InputError
from recmodels.models.example import N_ITEMS, N_USERS
from recmodels.ranking.ranker import EmbeddingScorer

HOST = "http://127.0.0.1:3100"
STATIC = files("pipelines.explorer") / "static"


@pytest.fixture
def explored(tmp_path: Path, instance: dg.DagsterInstance) -> Explored:
    """A data root in which nothing is recorded yet."""
    return Explored(tmp_path, instance)


@pytest.fixture
def client(explored: Explored) -> TestClient:
    """The explorer over it."""
    return _client(explored)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The explorer over a finished demo."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        yield _client(Explored(folder, instance).everything())


def _client(explored: Explored) -> TestClient:
    return TestClient(explorer_app(Results(explored.instance, explored.root)), base_url=HOST)


def _ask(client: TestClient, path: str, **parameters: object) -> Any:
    answer = client.get(f"/api/{path}", params={"dataset": "demo", **parameters} if path != "datasets" else parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_data_set_is_told_with_its_models_the_best_first(finished: TestClient) -> None:
    assert [known["dataset"] for known in _ask(finished, "datasets")["datasets"]] == ["demo"]
    overview = _ask(finished, "overview")
    assert (overview["users"], overview["items"], overview["rows"]) == (13, 16, 97)
    assert [(model["model"], model["seeds"], model["recall"]) for model in overview["models"]] == [
        ("ease", [0], 0.75), ("bpr", [0], 0.5), ("calibrated/bpr", [0], None),
    ]  # fmt: skip
    assert overview["groups"]["5-9"] == 12
    assert (overview["report"], overview["hint"]) == (True, "")


@pytest.mark.parametrize("model", ["ease", "bpr", "calibrated/bpr"])
def test_recommendations_are_the_rankings_best_unseen_items_with_hits_marked(finished: TestClient, model: str) -> None:
    pairs = tables()["interactions"].filter(pl.col("user_id") == 2)
    seen = pairs.filter(pl.col("split") != "test")["item_id"].to_list()
    test = {f"B{item}" for item in pairs.filter(pl.col("split") == "test")["item_id"]}
    found = _ask(finished, "recommendations", user="R2", model=model, n=N_ITEMS)
    items, scores = rankers()[model].top_items(torch.tensor([2]), N_ITEMS)
    if model != "calibrated/bpr":  # whose shortlist leaves out what was seen
        expected = {f"B{item}": score for item, score in zip(items[0].tolist(), scores[0].tolist(), strict=True)}
        scored = {row["asin"]: row["score"] for row in found["rows"]}
        assert scored == pytest.approx({asin: expected[asin] for asin in scored})
    assert [row["score"] for row in found["rows"]] == sorted((row["score"] for row in found["rows"]), reverse=True)
    assert {row["asin"] for row in found["rows"]} == {f"B{item}" for item in range(N_ITEMS)} - {f"B{i}" for i in seen}
    assert {row["asin"] for row in found["rows"] if row["held_out"]} == test
    assert [row["rank"] for row in found["rows"]] == list(range(1, len(found["rows"]) + 1))


def test_who_has_no_training_rows_is_answered_by_popularity_and_told_so(finished: TestClient) -> None:
    assert {row["source"] for row in _ask(finished, "recommendations", user=COLD, model="ease")["rows"]} == {
        "popularity"
    }
    stranger = _ask(finished, "recommendations", user="a stranger", model="ease")["rows"]
    assert {row["source"] for row in stranger} == {"popularity, unknown user"}


def test_titles_and_pictures_go_out_as_they_are_and_addresses_of_private_places_do_not(finished: TestClient) -> None:
    item = _ask(finished, "item", item="B0")
    assert (item["title"], item["picture"]) == (ATTACK, PICTURE)
    assert item["profile"]["text"] == f"profile of 0 {ATTACK}"
    assert [_ask(finished, "item", item=asin)["picture"] for asin in ("B4", "B5")] == [None, None]


def test_reasons_and_similar_items_come_with_titles(finished: TestClient) -> None:
    why = _ask(finished, "reasons", user="R2", model="ease", item="B0")
    assert {reason["kind"] for reason in why} == {"model", "co-buyers", "graph: text"}
    had = {item["asin"] for item in _ask(finished, "user", user="R2")["history"]}
    assert all(reason["because"]["asin"] in had for reason in why)
    similar = _ask(finished, "similar", model="bpr", item="B0", n=3)["rows"]
    assert [row["rank"] for row in similar] == [1, 2, 3]
    assert "B0" not in {row["asin"] for row in similar}


def test_users_are_found_by_part_of_their_id_by_group_and_at_random(finished: TestClient) -> None:
    assert [user["user"] for user in _ask(finished, "users", text="r1", limit=2)] == ["R1", "R10"]
    assert [user["user"] for user in _ask(finished, "users", group="0-4")] == [COLD]
    assert {_ask(finished, "any_user", group="5-9")["user"] for _ in range(20)} <= {f"R{user}" for user in range(12)}


def test_answers_are_what_the_openapi_document_says(finished: TestClient) -> None:
    document = finished.get("/openapi.json").json()
    given = {"user": "R2", "item": "B0", "model": "ease"}
    for endpoint in ENDPOINTS:
        operation = document["paths"][endpoint.path]["get"]
        named = {parameter["name"] for parameter in operation["parameters"]}
        required = {parameter["name"] for parameter in operation["parameters"] if parameter["required"]}
        answer = _ask(finished, endpoint.path.removeprefix("/api/"), **{n: given[n] for n in named & given.keys()})
        TypeAdapter(endpoint.answer).validate_python(answer, strict=True)
        assert required <= {"dataset", *given}
        assert operation["summary"]
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()


@pytest.mark.parametrize(
    ("path", "parameters", "words"),
    [
        ("user", {"user": "R1l"}, "user: expected a user of the data set, found 'R1l'. Did you mean R1"),
        ("user", {}, "user: Field required"),
        ("user", {"user": "R1", "nonsense": "1"}, "parameters: expected some of dataset, user, found 'nonsense'"),
        ("users", {"limit": "100000"}, "limit: Input should be less than or equal to 200"),
        ("recommendations", {"user": "R1", "model": "eas"}, "model: expected one of"),
        ("recommendations", {"user": "R1", "model": "freedom"}, "freedom for demo: expected one of seed 0"),
        ("recommendations", {"user": "R1", "model": "ease", "seed": "7"}, "found seeds 0"),
        ("recommendations", {"user": "R1", "model": "ease", "n": "0"}, "n: Input should be greater than or equal to 1"),
        ("overview", {"dataset": "dem"}, "Did you mean demo?"),
        ("overview", {"dataset": "../demo"}, "data set: expected one of"),
        ("similar", {"item": "nothing", "model": "ease"}, "asins that the model knows"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_one_clear_line(
    finished: TestClient, path: str, parameters: dict[str, str], words: str
) -> None:
    answer = finished.get(f"/api/{path}", params={"dataset": "demo", **parameters})
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_what_is_not_there_is_told_with_what_to_do(client: TestClient, explored: Explored) -> None:
    assert "Run `recmodels run`" in _ask(client, "datasets")["hint"]
    missing = client.get("/api/overview", params={"dataset": "demo"})
    assert (missing.status_code, missing.json()["error"].split(":")[0]) == (
        404,
        "interactions of demo was never materialised",
    )
    assert client.get("/report/demo").status_code == 404
    for name, table in tables().items():
        if name not in {"item_profiles", "user_profiles", "leaderboard"}:
            explored.store(name, table)
    overview = _ask(_client(explored), "overview")
    assert (overview["models"], overview["report"]) == ([], False)
    assert overview["hint"] == "No model is trained yet. Run `recmodels run --dataset demo`."
    assert _ask(_client(explored), "user", user="R2")["profile"] is None


def test_a_new_checkpoint_and_new_tables_are_shown_without_a_restart(client: TestClient, explored: Explored) -> None:
    explored.everything()
    before = _ask(client, "recommendations", user="R2", model="bpr")
    other = EmbeddingScorer(torch.ones(N_USERS + 1, 1), -torch.arange(N_ITEMS, dtype=torch.float32)[:, None])
    explored.train("bpr", other, run="another")
    explored.store("items", tables()["items"].with_columns(title=pl.lit("new")))
    deadline = time.monotonic() + 30
    while (after := _ask(client, "recommendations", user="R2", model="bpr")) == before or {
        row["title"] for row in after["rows"]
    } != {"new"}:
        assert time.monotonic() < deadline
        time.sleep(SECONDS / 4)
    assert [row["score"] for row in after["rows"]] == sorted((row["score"] for row in after["rows"]), reverse=True)
    assert {row["score"] for row in after["rows"]} <= {-float(item) for item in range(N_ITEMS)}


def test_a_damaged_checkpoint_is_told_and_never_shown(client: TestClient, explored: Explored) -> None:
    folder = explored.everything().train("bpr", rankers()["bpr"], run="damaged")
    (folder / "ranking.safetensors").write_bytes(b"")
    answer = client.get("/api/recommendations", params={"dataset": "demo", "user": "R2", "model": "bpr"})
    assert answer.status_code == 404
    assert "ranking.safetensors is damaged" in answer.json()["error"]


def test_checkpoints_that_nobody_asked_for_longest_are_closed_when_memory_is_scarce(explored: Explored) -> None:
    results = Results(explored.everything().instance, explored.root, memory=3000)
    assert sum(tensor.nbytes for tensor in rankers()["ease"].tensors().values()) < 3000
    first = results.recommender("demo", "ease", 0)
    assert results.recommender("demo", "ease", 0) is first
    results.recommender("demo", "calibrated/bpr", 0)
    assert results.recommender("demo", "ease", 0) is not first


def test_what_is_stale_is_told_with_the_reason(finished: TestClient) -> None:
    stale = {(one["model"], one["seed"]): one["reasons"] for one in _ask(finished, "stale")}
    assert stale.keys() == {("ease", 0), ("bpr", 0), ("calibrated/bpr", 0)}
    assert any("recorded no settings" in reason for reason in stale["ease", 0])


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3100", "127.0.0.1.evil.example", "localhost.evil.example", ""]
)
def test_a_request_under_another_name_is_refused(finished: TestClient, host: str) -> None:
    for path in ("/", "/api/datasets", "/report/demo", "/openapi.json", "/explorer.js"):
        assert finished.get(path, headers={"host": host}).status_code == 400
    for own in ("127.0.0.1:3100", "localhost", "LOCALHOST:1", "[::1]:3100"):
        assert finished.get("/", headers={"host": own}).status_code == 200


def test_names_of_a_server_for_others_are_its_own() -> None:
    assert own_names("127.0.0.1") == ["127.0.0.1", "[127.0.0.1]", "localhost", "::1", "[::1]"]
    assert "*" not in "".join(own_names("0.0.0.0"))  # noqa: S104 nothing listens
    assert {"reachable.example", "127.0.0.1"} <= set(own_names("reachable.example"))
    assert own_names("127.0.0.1", "https://Explorer.example:8443/here")[-1] == "explorer.example"
    assert own_names("127.0.0.1", "https://*") == own_names("127.0.0.1")
    with pytest.raises(InputError, match=r"address of the explorer: expected .* found 'http://\[broken'"):
        own_names("127.0.0.1", "http://[broken")


def test_every_answer_forbids_what_is_not_its_own(finished: TestClient) -> None:
    for path in ("/", "/docs", "/openapi.json", "/api/datasets", "/api/nothing", "/explorer.js", "/api/user"):
        headers = finished.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    assert finished.get("/", params={"pictures": "1"}).headers["content-security-policy"] == POLICY_WITH_PICTURES
    assert "img-src 'none'" in POLICY
    assert "unsafe" not in POLICY_WITH_PICTURES
    assert finished.get("/favicon.ico").status_code == 204  # which browsers ask for by themselves
    assert {finished.request(method, "/api/datasets").status_code for method in ("POST", "PUT", "DELETE")} == {405}


def test_the_report_is_served_in_a_sandbox_without_scripts(finished: TestClient) -> None:
    answer = finished.get("/report/demo")
    assert "<p>report</p>" in answer.text
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    assert policy.endswith("sandbox")
    assert finished.get("/report/..%2f..%2fetc%2fpasswd").status_code in (400, 404)


def test_the_page_has_no_way_to_put_markup_into_itself_and_loads_its_own_files_alone() -> None:
    script = (STATIC / "explorer.js").read_text()
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "http"):
        assert forbidden not in script
    page = (STATIC / "explorer.html").read_text()
    assert re.findall(r'(?:src|href)="([^"#]+)"', page) == ["/explorer.css", "/explorer.js", "/docs"]
    assert " on" not in re.sub(r">[^<]*<", "><", page).replace("aria-", "")
    assert not re.search(r"url\(|@import", (STATIC / "explorer.css").read_text())


def test_readers_get_the_last_value_while_one_looks_again() -> None:
    looking, done, looks = threading.Event(), threading.Event(), []

    def look_up(last: int | None) -> int:
        looks.append(last)
        if last is not None:
            looking.set()
            assert done.wait(30)
        return len(looks)

    fresh = Fresh(look_up, seconds=0)
    assert fresh.get() == 1
    one = threading.Thread(target=fresh.get)
    one.start()
    assert looking.wait(30)
    assert [fresh.get(), fresh.get()] == [1, 1]
    done.set()
    one.join()
    assert (fresh.last, looks) == (2, [None, 1])


def test_links_of_records_lead_into_the_explorer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explorer_link(dataset="demo", model="calibrated/bpr").url == f"{HOST}/?dataset=demo&model=calibrated%2Fbpr"
    monkeypatch.setenv("RECMODELS_EXPLORER", "https://explorer.example/")
    assert explorer_link("report/demo").url == "https://explorer.example/report/demo"


def test_nothing_is_written_by_reading(explored: Explored) -> None:
    explored.everything()
    root = explored.root.root
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    client = _client(explored)
    for endpoint in ENDPOINTS:
        client.get(endpoint.path, params={"dataset": "demo", "user": "R2", "item": "B0", "model": "ease"})
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before
