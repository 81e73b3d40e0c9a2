"""A small report."""

import pytest
from report_example import example_report

from recmodels.reporting.build import ReportInputs


@pytest.fixture
def inputs() -> ReportInputs:
    """What is shown of a small data set that is made up."""
    return example_report()
