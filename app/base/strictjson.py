"""JSON from strangers, where two readings of one text would be an attack: one meaning or none."""

import json
import math
from typing import Any, NoReturn


class BadJson(ValueError):
    """Not one unambiguous JSON object; the text says which rule it breaks, never what it holds."""


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises: BadJson for anything but one UTF-8 object; also for repeated keys, NaN and Infinity, numbers and
    nesting out of proportion, lone surrogates and NUL (Postgres text cannot hold them).
    """
    try:
        text = body.decode("utf-8")
        if "\\u0000" in text:
            raise BadJson("holds NUL")
        found = _DECODER.decode(text)
        if "\\u" in text:  # the only way in for a lone surrogate
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except BadJson:
        raise
    except UnicodeError as error:
        raise BadJson("not valid UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BadJson("not JSON") from error
    if not isinstance(found, dict):
        raise BadJson("not an object")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJson("a key is repeated")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise BadJson("a number is out of range")
    return number


def _refuse(constant: str) -> NoReturn:
    raise BadJson(f"{constant} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse, parse_float=_finite)
