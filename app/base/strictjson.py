"""JSON from strangers, where two readings of one text would be an attack: one meaning or none."""

import json
import math
import re
from typing import Any, NoReturn

# Escapes that stand for no character of Postgres text; what group 1 takes (a pair, another escape) is none of them.
_ODD = re.compile(
    r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])"
    r"|\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})"
)


class BadJson(ValueError):
    """Not one unambiguous JSON object; the text says which rule it breaks, never what it holds."""


def decode_object(body: bytes, *, mend: bool = False) -> dict[str, Any]:
    """The JSON object in `body`. `mend`: NUL and lone surrogates become U+FFFD, for bodies that people write into.

    Raises: BadJson for anything but one UTF-8 object; also for repeated keys, NaN and Infinity, numbers and
    nesting out of proportion, lone surrogates and NUL (Postgres text cannot hold them).
    """
    try:
        text = body.decode("utf-8")
        if mend:
            text = _ODD.sub(lambda found: found[1] or "\\ufffd", text)
        elif "\\u0000" in text and any(found[0] == "\\u0000" for found in _ODD.finditer(text)):
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
