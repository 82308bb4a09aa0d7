"""Quantities as Kubernetes reads them."""

from decimal import Decimal

import pytest

from opengpu_operator.desired import quantities


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        ("100m", "0.1"),
        ("0.5", "0.5"),
        ("1.5Gi", str(3 * 2**29)),
        ("64Mi", str(2**26)),
        ("2k", "2000"),
        ("1e3", "1000"),
        ("1E", "1e18"),
        (536870912, "536870912"),
        (0.25, "0.25"),
        ("5u", "0.000005"),
    ],
)
def test_parse(text, value):
    assert quantities.parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1GiB", "one", "1e", "--1"])
def test_what_is_no_quantity(text):
    with pytest.raises(ValueError, match="is not a quantity"):
        quantities.parse(text)


def test_compares_across_units_and_keeps_the_spelling():
    assert quantities.smaller("1024Mi", "1Gi") == "1024Mi"
    assert quantities.smaller("2000m", "1.5") == "1.5"
    assert quantities.larger("1G", "1Gi") == "1Gi"


def test_a_sum_is_in_whole_units_and_one_quantity_keeps_its_spelling():
    assert quantities.total("4Gi", "0.5Ki", "1k") == str(2**32 + 512 + 1000)
    assert quantities.total("4Gi") == "4Gi"
