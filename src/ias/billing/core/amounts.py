"""Amounts of money as callers write them."""

from ias.contracts.money import InvalidAmountError, parse_usd
from ias.kit.problems import FieldError, InvalidError


def parse_amount(text: str, pointer: str) -> int:
    """Nano-USD of an amount in a request; `pointer` is the JSON pointer of its field.

    Raises:
        InvalidError: not an amount; names the field.
    """
    try:
        return parse_usd(text)
    except InvalidAmountError as error:
        problem = FieldError(pointer=pointer, detail=str(error))
        raise InvalidError(f"{pointer}: {error}", errors=[problem]) from error
