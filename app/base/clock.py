"""Time as the service tells it: aware UTC datetimes, and Unix seconds where a protocol wants them."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    return datetime.now(UTC)


def unix_s() -> int:
    return int(time.time())
