"""Offer: what can be bought at this moment, with a token that holds the checkout to it (decision 0021)."""

from app.base import clock, prose
from app.channels.line import Offer
from app.domain import stock
from app.infra.secrets import Offered
from app.shop import Shop

LIFE_S = 900  # as long as an unpaid order keeps its goods
LONGEST_TITLE = 100


async def offer(shop: Shop, user_id: int, product_id: int, quantity: int) -> Offer | stock.Quote | None:
    """The offer; else what there is of the product instead, None when there is no such product.

    Raises: PostgresDown.
    """
    quoted = (await stock.quote(shop.deps.pg, [stock.Units(product_id, quantity)])).get(product_id)
    return quoted and (made(shop, user_id, quoted) or quoted)


def made(shop: Shop, user_id: int, quoted: stock.Quote) -> Offer | None:
    """The offer of what was just read; None when that cannot be had, or nobody could sign in to buy it."""
    signs = shop.deps.offers
    if quoted.price_minor is None or signs is None:
        return None
    offered = Offered(
        product_id=quoted.product_id, quantity=quoted.quantity, price_minor=quoted.price_minor,
        currency=quoted.currency, user_id=user_id, expires_s=clock.unix_s() + LIFE_S,
    )  # fmt: skip
    return Offer(
        product_id=offered.product_id, title=title(quoted), quantity=offered.quantity, price_minor=offered.price_minor,
        currency=offered.currency, token=signs.issue(offered),
    )  # fmt: skip


def title(quoted: stock.Quote) -> str:
    """The title on one line, and no longer than a button or a line of a list takes."""
    return prose.one_line(quoted.title, LONGEST_TITLE)
