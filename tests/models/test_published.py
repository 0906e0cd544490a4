"""The published table carries what the paper says, with its source."""

import pytest

from esa_notebooks.models.published import METRICS, published


def test_the_table_is_whole():
    table = published()
    assert len(table) == 30 and table.index.is_unique and not table.isna().any().any()
    assert table.source.str.contains("10.1038/s41597-025-05035-3").all()
    assert table[list(METRICS)].stack().between(0, 1).all()


def test_groups():
    assert published().group.value_counts().to_dict() == {"unsupervised": 23, "supervised": 7}


@pytest.mark.parametrize(
    "detector, metric, value", [("FCNN", "f1", 0.946), ("MO-GAAL", "auc_pr", 0.779), ("XGBOD", "auc_roc", 0.992)]
)
def test_figures_quoted_elsewhere(detector, metric, value):
    assert published().loc[detector, metric] == value
