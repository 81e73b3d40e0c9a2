"""The guide's example runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "calibration.md"


def test_the_example_of_the_guide_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    checks = """
assert calibration.search["chosen"].sum() == 1
assert calibration.search["shortlist"].unique().sort().to_list() == [20, 40]
assert recommender.checkpoint.ranker.reasons(7, shown)["item_id"].is_in(shown).all()
assert len(shown) == 10
"""
    run = subprocess.run([sys.executable, "-c", block + checks], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
