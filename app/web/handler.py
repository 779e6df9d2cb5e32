"""What every handler is given: the request and the shop."""

from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency

from app.shop import Shop

Req = Request[Any, Any, State]
TheShop = NamedDependency[Shop]
