"""Kubernetes quantities as numbers, to compare what a file asks for with the cluster's defaults."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_FORM = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([eE][+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i))?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse(value: str | float) -> Decimal:
    """Return a quantity as a number; ValueError if it is none.

    >>> parse("1.5Gi")
    Decimal('1610612736.0')
    """
    match = _FORM.fullmatch(str(value).strip())
    if match is None:
        message = f"{value!r} is not a quantity"
        raise ValueError(message)
    number, exponent, suffix = match.groups()
    if exponent:
        try:
            return Decimal(number + exponent)
        except InvalidOperation:
            message = f"{value!r} is no quantity that anything could have"
            raise ValueError(message) from None
    if suffix in _BINARY:
        return Decimal(number) * Decimal(2 ** _BINARY[suffix])
    return Decimal(number).scaleb(_DECIMAL[suffix]) if suffix else Decimal(number)


def smaller(one: str, other: str) -> str:
    """Return the smaller of two quantities, as it was written."""
    return one if parse(one) <= parse(other) else other


def larger(one: str, other: str) -> str:
    """Return the larger of two quantities, as it was written."""
    return one if parse(one) >= parse(other) else other


def total(first: str, *others: str) -> str:
    """Return the sum of quantities; the first as it was written where there are no others."""
    return str(int(sum(map(parse, others), parse(first)))) if others else first
