"""Every failure that a caller may see, as one tree; `web/problems.py` alone turns them into responses.

Problem
├── Malformed 400         the request does not decode, or breaks a stated rule
├── Unproven 401          BadInitData · BadSignature · BadToken
├── Forbidden 403         BadOffer
├── NotFound 404
├── MethodNotAllowed 405
├── TooSlow 408
├── Conflict 409          OutOfStock · InProgress · TwoSellers · TooManyPending · Duplicates · NotEnough
│            409          PromoRefused · OfferStale
├── TooLarge 413
├── UnsupportedMedia 415
├── KeyReused 422
├── TooManyRequests 429
├── Internal 500
└── Unavailable 503       RedisDown · PostgresDown · ProviderDown · ProviderRefused · Busy
"""

from typing import ClassVar


class Problem(Exception):
    """One refusal: `type`, `title`, `status` are the class's, `detail` and `facts` the occurrence's (RFC 9457)."""

    type: ClassVar[str] = "about:blank"
    title: ClassVar[str] = "Problem"
    status: ClassVar[int] = 500

    def __init__(self, detail: str = "", *, retry_after_s: int | None = None, **facts: object) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.facts = facts


class Malformed(Problem):
    """The request does not decode, or breaks a rule that its documentation states."""

    type, title, status = "/problems/malformed", "Malformed request", 400


class Unproven(Problem):
    """The caller did not prove who it is."""

    type, title, status = "/problems/unproven", "Not authenticated", 401


class BadInitData(Unproven):
    """Telegram's initData is forged, altered, too old, from the future, or repeats a key."""

    type, title = "/problems/bad-init-data", "Bad initData"


class BadSignature(Unproven):
    """A webhook's signature is missing or wrong; nothing was stored."""

    type, title = "/problems/bad-signature", "Bad signature"


class BadToken(Unproven):
    """The bearer token is missing, altered or expired; get a new one from POST /api/session."""

    type, title = "/problems/bad-token", "Bad token"


class Forbidden(Problem):
    """The caller is known and may not do this."""

    type, title, status = "/problems/forbidden", "Forbidden", 403


class BadOffer(Forbidden):
    """The token of an offer is forged, altered, another buyer's (`reason`: unknown) or too old (expired); nothing is
    ordered. The consultant makes a new one."""

    type, title = "/problems/bad-offer", "Bad offer"


class NotFound(Problem):
    """Nothing here, or nothing that this caller may see."""

    type, title, status = "/problems/not-found", "Not found", 404


class MethodNotAllowed(Problem):
    """The path exists, this method does not; `Allow` names those that do."""

    type, title, status = "/problems/method-not-allowed", "Method not allowed", 405


class TooSlow(Problem):
    """The body took longer to arrive than anybody's connection needs."""

    type, title, status = "/problems/too-slow", "Body too slow", 408


class Conflict(Problem):
    """The request is well formed, the present state refuses it."""

    type, title, status = "/problems/conflict", "Conflict", 409


class OutOfStock(Conflict):
    """Less is left than was asked; nothing is held. `left` maps product id to units left."""

    type, title = "/problems/out-of-stock", "Out of stock"


class InProgress(Conflict):
    """The first request with this Idempotency-Key still runs; repeat after `Retry-After`."""

    type, title = "/problems/in-progress", "Already in progress"


class TwoSellers(Conflict):
    """The cart's products belong to more than one seller, or are priced in more than one currency."""

    type, title = "/problems/two-sellers", "One seller per order"


class Duplicates(Conflict):
    """Secrets that the product has or had already; nothing was added. `duplicates` has line and fingerprint of each."""

    type, title = "/problems/duplicates", "Added before"


class TooManyPending(Conflict):
    """The buyer has as many unpaid orders as one may have: pay one, or wait until it expires. `limit` says how many."""

    type, title = "/problems/too-many-pending", "Too many unpaid orders"


class NotEnough(Conflict):
    """The buyer's balance is less than the order costs; the order stands, to be paid otherwise."""

    type, title = "/problems/not-enough", "Not enough on the balance"


class PromoRefused(Conflict):
    """The promo code cannot be used for this order; nothing is ordered. `reason`: unknown, foreign (other goods),
    not_yet, ended, used (by this buyer), exhausted."""

    type, title = "/problems/promo-refused", "Promo code refused"


class OfferStale(Conflict):
    """The goods cost something else now than was offered; nothing is ordered. `price_minor` is what they cost now, all
    together, in `currency`, and `offered_minor` what they were offered for."""

    type, title = "/problems/offer-stale", "The price has changed"


class TooLarge(Problem):
    """The body is larger than this endpoint reads."""

    type, title, status = "/problems/too-large", "Body too large", 413


class UnsupportedMedia(Problem):
    """The body's type or encoding is not one that this endpoint reads."""

    type, title, status = "/problems/unsupported-media", "Unsupported media type", 415


class KeyReused(Problem):
    """The Idempotency-Key was first used with another body."""

    type, title, status = "/problems/key-reused", "Idempotency-Key reused", 422


class TooManyRequests(Problem):
    """A rate limit is used up; a repeat after `Retry-After` is admitted. `policies` names the limits."""

    type, title, status = "/problems/too-many-requests", "Too many requests", 429


class Internal(Problem):
    """A defect of ours; the log carries the same `request_id`."""

    type, title, status = "/problems/internal", "Internal error", 500


class Unavailable(Problem):
    """A part that this request needs does not answer now; the same request may succeed later."""

    type, title, status = "/problems/unavailable", "Temporarily unavailable", 503


class RedisDown(Unavailable):
    """Redis did not answer in time; whether the call ran is unknown."""

    type, title = "/problems/redis-down", "Redis unavailable"


class PostgresDown(Unavailable):
    """Postgres did not answer; nothing was acknowledged."""

    type, title = "/problems/postgres-down", "Postgres unavailable"


class ProviderDown(Unavailable):
    """An outside party (gateway, Telegram) did not answer, or not in its own protocol. `unsure`: it may have done all
    the same what was asked, so that asking again may do it twice; chat channels alone tell that."""

    type, title = "/problems/provider-down", "Provider unavailable"

    def __init__(
        self, detail: str = "", *, retry_after_s: int | None = None, unsure: bool = False, **facts: object
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **facts)
        self.unsure = unsure


class ProviderRefused(ProviderDown):
    """An outside party answered in its own protocol, and not what was asked for; it may another time."""

    type, title = "/problems/provider-refused", "Provider refused"


class Busy(Unavailable):
    """Too many at once; repeat after `Retry-After`."""

    type, title = "/problems/busy", "Busy"
