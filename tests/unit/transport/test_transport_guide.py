"""The guide's examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "transport.md"


def test_the_examples_of_the_guide_run_in_order() -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert blocks
    blocks.append("assert result.interactions['added'].sum() == result.diagnostics['q'] > 0")
    blocks.append("assert negatives.shape == users.shape")
    run = subprocess.run([sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
