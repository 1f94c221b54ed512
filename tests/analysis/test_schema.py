"""The columns' documentation: complete, and the page is what the tables say."""

from pathlib import Path

import pytest

from analysis.schema import (
    DECISION_COLUMNS,
    EPOCH_COLUMNS,
    METRICS,
    STATUS_COLUMNS,
    SUMMARY_COLUMNS,
    TRIAL_COLUMNS,
    documentation,
)

ROOT = Path(__file__).parents[2]
TABLES = {
    "epochs": EPOCH_COLUMNS,
    "trials": TRIAL_COLUMNS,
    "summary": SUMMARY_COLUMNS,
    "statuses": STATUS_COLUMNS,
    "decisions": DECISION_COLUMNS,
}


def test_the_page_of_columns_is_up_to_date() -> None:
    written = (ROOT / "docs" / "columns.md").read_text()
    assert written == documentation(), "python -m analysis.schema > docs/columns.md"


def test_the_page_names_every_column_of_every_file() -> None:
    page = documentation()
    for columns in (EPOCH_COLUMNS, TRIAL_COLUMNS, SUMMARY_COLUMNS, DECISION_COLUMNS):
        assert all(f"| `{column.name}` | " in page for column in columns)


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
def test_every_column_is_named_once_and_explained(columns: tuple) -> None:
    assert len({column.name for column in columns}) == len(columns)
    assert all(column.doc and not column.doc.endswith(".") for column in columns)


def test_metrics_have_a_range() -> None:
    assert all(metric.least < metric.most for metric in METRICS)
