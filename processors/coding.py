"""JSON without spaces, fast: the standard library makes an encoder for each value, here one is made once."""

from __future__ import annotations

import json
from collections.abc import Callable
from json import encoder as standard
from typing import Any


def _refuse(value: Any) -> Any:
    problem = f"Object of type {type(value).__name__} is not JSON serializable"
    raise TypeError(problem)


def encoder(*, allow_nan: bool = True, default: Callable[[Any], Any] = _refuse) -> Callable[[Any], str]:
    """Return a function that says values in JSON, as ``json.dumps`` with these settings does.

    The function raises ValueError or TypeError for what cannot be said, RecursionError for what holds itself.
    """
    make = getattr(standard, "c_make_encoder", None)
    if make is None:  # not in every Python
        return json.JSONEncoder(
            allow_nan=allow_nan, default=default, separators=(",", ":"), check_circular=False
        ).encode
    encode = make(None, default, standard.encode_basestring_ascii, None, ":", ",", False, False, allow_nan)
    return lambda value: "".join(encode(value, 0))


text: Callable[[str], str] = standard.encode_basestring_ascii
"""Says a text in JSON."""
