"""What a server refuses is told without what it repeats of the command."""

import traceback

import pytest
from redis.exceptions import ConnectionError, ResponseError

from perdure.errors import StoreError
from perdure.store.failures import translate


@pytest.mark.parametrize(
    "refusal",
    [
        ResponseError("unknown command 'AUTH', with args beginning with: 'user' 's3cret' "),
        ResponseError("unknown command `APPEND`, with args beginning with: `key`, `s3cret`, "),
        ConnectionError("no sentinel: unknown command 'AUTH', with args beginning with: 's3cret'"),
    ],
)
def test_what_a_server_repeats_of_a_command_is_not_told(refusal: Exception) -> None:
    with pytest.raises(StoreError, match=r"unknown command .A") as caught:
        raise translate(refusal, "Redis at there") from refusal
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
