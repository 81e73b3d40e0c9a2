"""A run cannot send a secret of the deployment to a server of its own choice."""

from typing import Any

import dagster as dg
import pytest
from graph_runs import Run, failure_texts
from loopback_llm import MODEL, LoopbackLLM

from pipelines.cli.main import main


@pytest.mark.parametrize("asset", ["item_profiles", "user_profiles"])
@pytest.mark.parametrize("reserved", [{"server": "http://127.0.0.1:9"}, {"api_key_variable": "OTHER_API_KEY"}])
def test_server_and_key_are_refused_in_run_config(asset: str, reserved: dict[str, str], prepared_run: Run) -> None:
    with LoopbackLLM() as llm:
        server = {"server": llm.openai} if "server" in reserved else {}
        settings: dict[str, Any] = {"model": MODEL} | reserved | server
        config = {asset: {"config": {"backend": "openai", "settings": settings}}}
        result = prepared_run("prepare", assets=[dg.AssetKey(asset)], config=config)
        assert not llm.calls
        assert not llm.last_headers
    assert not result.success
    (text,) = failure_texts(result)
    assert f"found {next(iter(reserved))}" in text
    assert "RECMODELS_CATALOGUE" in text


def test_a_run_may_choose_the_back_end_whose_server_the_environment_names(
    prepared_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    with LoopbackLLM() as llm:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.openai)
        settings = {"model": MODEL, "price_per_million_answer_tokens": 2.0}
        config = {"item_profiles": {"config": {"backend": "openai", "settings": settings}}}
        results = [prepared_run("prepare", assets=[dg.AssetKey("item_profiles")], config=config) for _ in range(2)]
        assert all(result.success for result in results), [failure_texts(result) for result in results]
        assert llm.last_headers["authorization"] == "Bearer sesame"
        calls = len(llm.calls)
    # Numbers, which the interface plots over the materialisations.
    first, second = (
        dict(made.metadata) for result in results for made in result.asset_materializations_for_node("item_profiles")
    )
    assert first["calls"] == dg.IntMetadataValue(calls)
    assert second["from_cache"] == dg.IntMetadataValue(int(str(first["rows"].value)))
    assert second["calls"] == second["answer_tokens"] == dg.IntMetadataValue(0)
    tokens = first["answer_tokens"].value
    assert isinstance(tokens, int)
    assert isinstance(first["cost"], dg.FloatMetadataValue)
    assert first["cost"].value == pytest.approx(2e-6 * tokens)
    assert tokens > 0


def test_the_command_line_refuses_them_before_anything_runs(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert main(["run", "--profiles", "ollama", "--profile-setting", "server=http://127.0.0.1:9"]) == 1
    said = "".join(capsys.readouterr())
    assert "settings of a run" in said
    assert "OLLAMA_HOST" in said
