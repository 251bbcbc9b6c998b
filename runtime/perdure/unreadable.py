"""What was written by other code than this: told without the values, which are nobody's to read in a log."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from perdure.context.serializers import BaseSerializer
from perdure.errors import IncompatibleError

_USERS_OWN = ("value_error", "assertion_error")


def read_back(serializer: BaseSerializer, data: bytes, what: str) -> Any:
    """The value of `data`, whose checksum held: what can't be read now was written by other code.

    Raises IncompatibleError, which names `what`.
    """
    try:
        return serializer.deserialize(data.decode())
    except IncompatibleError as error:
        raise IncompatibleError(f"{what} can't be read: {error}") from error
    except ValidationError as error:
        why = f"{error.title} is another class now ({what_is_wrong(error)})"
    except Exception as error:
        why = f"{type(error).__name__}: {error}" if isinstance(error, TypeError) else type(error).__name__
    raise IncompatibleError(
        f"{what} can't be read by this code: {why}. Run the code that wrote it, or let the class take its old "
        "fields too"
    )


def what_is_wrong(error: ValidationError) -> str:
    """Which fields, and why; what a validator of the user's says of it may repeat the value."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'the whole'}: "
        + ("refused by its validator" if problem["type"] in _USERS_OWN else problem["msg"])
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    )
