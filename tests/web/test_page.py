"""The Mini App's page as it is written: no build step and no test runner look at it, so this does.

What it takes from its own files, from its words in three languages and from the API has to be there.
"""

import inspect
import json
import re

import msgspec
import pytest
from litestar.routes import HTTPRoute

from app import errors
from app.domain import leaderboard, ledger, reviews
from app.flows import checkout, present
from app.gateways import registry
from app.main import create_app
from app.web import events, growth, money, moves, orders, shop
from app.web.front import PAGE
from app.web.reviews import ReviewList, Written
from tests.house.tree import ROOT, text
from tests.world import settings_for

SOURCES = {path.name: path.read_text() for path in sorted(PAGE.glob("*.js"))}
CODE = "\n".join(SOURCES.values())
INDEX = (PAGE / "index.html").read_text()
LANGUAGES = 3
OURS = {"request", "shop"}  # what a handler is given besides the call's own parameters
MOST_LINES = 300
STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


def words(name: str) -> dict[str, list[str | dict[str, str]]]:
    """A table of words*.js, which is JSON but for bare keys, constants, comments and trailing commas."""
    table = re.search(rf"^export const {name} = (\{{\n.*?^\}});", CODE, re.MULTILINE | re.DOTALL)
    assert table
    constants = dict(re.findall(r"^const (\w+) = (\[.*\]);$", SOURCES["words-states.js"], re.MULTILINE))
    flat = re.sub(r": (\w+),$", lambda named: f": {constants[named[1]]},", table[1], flags=re.MULTILINE)
    said = STRING.findall(flat)
    bare = re.sub(r"//.*", "", STRING.sub("@", flat))
    quoted = re.sub(r",(\s*[}\]])", r"\1", re.sub(r"(\w+):", r'"\1":', bare))
    found: dict[str, list[str | dict[str, str]]] = json.loads(re.sub("@", lambda _: said.pop(0), quoted))
    return found


def forms(said: str | dict[str, str]) -> list[str]:
    return list(said.values()) if isinstance(said, dict) else [said]


def names(listed: str) -> set[str]:
    return {name.strip() for name in listed.split(",")} - {""}


def imports(source: str) -> list[tuple[set[str], str]]:
    found = re.findall(r'^import \{([^}]+)\} from "\./([\w-]+\.js)";$', source, re.MULTILINE)
    assert len(found) == len(re.findall(r"\bimport\b(?! =)", re.sub(r"//.*", "", source)))
    return [(names(listed), file) for listed, file in found]


def exports(source: str) -> set[str]:
    return set(re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", source, re.MULTILINE))


# Its own files.


@pytest.mark.parametrize("file", SOURCES)
def test_a_module_imports_what_others_export_and_uses_it(file: str) -> None:
    source = SOURCES[file]
    body = re.sub(r"^import .*$", "", source, flags=re.MULTILINE)
    for wanted, other in imports(source):
        assert wanted <= exports(SOURCES[other]), other
        assert {name for name in wanted if not re.search(rf"\b{name}\b", body)} == set(), other


def test_every_module_is_loaded_at_once() -> None:
    preloaded = re.findall(r'<link rel="modulepreload" href="([\w-]+\.js)">', INDEX)
    assert sorted([*preloaded, "app.js"]) == sorted(SOURCES)


def test_a_module_is_as_short_as_a_python_file() -> None:
    assert {name for name, source in SOURCES.items() if len(source.splitlines()) > MOST_LINES} == set()


def test_text_never_becomes_markup_and_nothing_needs_a_looser_policy() -> None:
    markup = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
        r"|\beval\b|new Function|\bstyle: \"(?!currency\b|unit\b|percent\b)|setAttribute\(\"style|javascript:"
    )
    assert markup.findall(re.sub(r"//.*", "", CODE)) == []
    assert re.findall(r"\son\w+=|\sstyle=|<style|<script(?! type=\"module\" src=)", INDEX) == []


def test_every_icon_is_drawn() -> None:
    drawn = set(re.findall(r'^  (\w+): "M', SOURCES["dom.js"], re.MULTILINE))
    asked = set(re.findall(r'\b(?:icon|blank)\("(\w+)"|\btile\("[^"]+", "(\w+)"', CODE))
    asked = {name for names in asked for name in names} - {""}
    for table in re.findall(r"^const (?:KIND_)?ICONS = (\{ .* \});", CODE, re.MULTILINE):
        asked |= {name.strip('"') for name in STRING.findall(table)}
    assert asked >= {"star", "cart", "wallet", "trophy"}
    assert asked <= drawn


# Its words.


TABLES = re.findall(r"^export const ([A-Z_]+) = \{$", CODE, re.MULTILINE)


def test_the_words_are_found() -> None:
    assert {"WORDS", "BUYING", "STATUSES", "SAID", "WAYS", "REASONS", "REFUSALS"} <= set(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_every_word_is_there_in_three_languages_with_the_same_facts(table: str) -> None:
    said = words(table)
    assert said
    for key, row in said.items():
        assert len(row) == LANGUAGES, key
        facts = {frozenset(re.findall(r"\{(\w+)\}", form)) for column in row for form in forms(column)}
        assert len(facts) == 1, key
        assert all(form.strip() for column in row for form in forms(column)), key
        plurals = [set(column) for column in row if isinstance(column, dict)]
        assert plurals in ([], [{"one", "other"}, {"one", "few", "other"}, {"one", "few", "other"}]), key


def test_every_word_that_is_asked_for_exists_and_every_word_is_asked_for() -> None:
    others = "\n".join(source for name, source in SOURCES.items() if not name.startswith("words"))
    known = words("WORDS").keys() | words("BUYING").keys()
    assert len(known) == len(words("WORDS")) + len(words("BUYING"))
    asked = set(re.findall(r'\bt\("(\w+)"', others))
    assert asked >= {"rateIt", "reviews", "total"}
    assert asked <= known
    computed = {"unit", "shared", "made", "shipped", "rateItNamed", "rateAgainNamed"}  # t(kind), t(`${word}Named`)
    named = {key for key in known if f'"{key}"' in others}
    assert {key for key in known - named - computed if not key.startswith("how_")} == set()


# Words for the server's own words.


def test_every_way_to_pay_has_a_name_and_no_name_is_left_of_one_that_is_gone() -> None:
    named = words("WAYS").keys()
    assert {"crystalpay", "aaio", "yookassa", "cryptopay", ledger.BALANCE} <= named
    assert named <= registry.known().keys() | {ledger.BALANCE}
    assert words("WAY_HINTS").keys() == named - {ledger.BALANCE}


def test_the_way_to_pay_that_is_the_fallback_exists() -> None:
    (default,) = re.findall(r'<meta name="torg-provider" content="(\w+)">', INDEX)
    assert default in registry.known()
    assert f'content || "{default}"' in SOURCES["ways.js"]
    assert f'BALANCE = "{ledger.BALANCE}"' in SOURCES["ways.js"]


def checked(column: str, named: str) -> set[str]:
    """The words that the database allows in a column, by the last migration that says so."""
    rules = [
        found[1]
        for path in sorted((ROOT / "sql/migrations").glob("*.sql"))
        for found in re.finditer(rf"\b{column} IN \(([^()]+)\)", path.read_text())
        if f"'{named}'" in found[1]
    ]
    return set(re.findall(r"'(\w+)'", rules[-1]))


def test_every_reason_of_a_statement_is_said_in_words() -> None:
    assert words("REASONS").keys() == checked("reason", "overpaid")


def test_what_came_of_the_orders_of_others_leads_to_none_of_ours() -> None:
    (others,) = re.findall(r"^const OTHERS = new Set\((\[.*\])\);", SOURCES["view-balance.js"], re.MULTILINE)
    assert {"bonus", "clawback"} <= set(json.loads(others)) <= words("REASONS").keys()


def test_every_status_of_an_order_has_a_name() -> None:
    assert checked("status", "preorder") <= words("STATUSES").keys()


def test_every_status_that_a_payment_can_end_in_is_told_in_a_sentence() -> None:
    assert {
        "pending",
        "paid",
        "preorder",
        "delivered",
        "cancelled",
        "expired",
        "refunded",
        "partially_refunded",
    } <= words("SAID").keys()


def test_every_reason_to_refuse_a_promo_code_is_said_in_words() -> None:
    assert words("REFUSALS").keys() == checkout.WHY_NOT.keys()


def test_the_facts_of_a_refusal_are_those_that_the_server_sends() -> None:
    read = set(re.findall(r"\bfacts\??\.(\w+)", CODE))
    assert {"balance_minor", "total_minor", "order_id", "order_status", "reason", "left"} <= read
    sent = text("app/flows/checkout.py") + text("app/flows/pay.py") + text("app/web/money.py")
    assert {fact for fact in read if f"{fact}=" not in sent} == set()


# The API it speaks to.


def test_every_call_has_an_endpoint() -> None:
    served = {
        (method, re.sub(r"\{\w+(?::\w+)?\}", "*", route.path_format))
        for route in create_app(settings_for("postgresql://nowhere/torg", "redis://nowhere")).routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
    }
    called = set(re.findall(r'(?:asBuyer|send)\("(\w+)", [`"](/api/[^`"?]*)', SOURCES["api.js"]))
    called |= {("GET", path) for path in re.findall(r"asAnyone\([`\"](/api/[^`\"?]*)", SOURCES["api.js"])}
    asked = {(method, re.sub(r"\$\{[^}]*\}", "*", path)) for method, path in called}
    assert {("PUT", "/api/products/*/review"), ("GET", "/api/products/*/reviews"), ("POST", "/api/orders")} <= asked
    assert asked <= served


def test_the_problems_it_explains_are_ours() -> None:
    def types(kind: type[errors.Problem]) -> set[str]:
        return {kind.type}.union(*(types(sub) for sub in kind.__subclasses__()))

    explained = set(re.findall(r"\"(/problems/[\w-]+)\"", CODE))
    assert {errors.TooManyPending.type, errors.TooManyRequests.type, errors.OutOfStock.type} <= explained
    assert {errors.NotEnough.type, errors.PromoRefused.type, errors.Conflict.type} <= explained
    assert explained <= types(errors.Problem)


def test_a_full_cart_of_unpaid_orders_leads_to_the_orders() -> None:
    shown = re.search(
        rf'"{errors.TooManyPending.type}" && linkButton\("([^"]+)", t\("toOrders"\)', SOURCES["view-cart.js"]
    )
    assert shown
    assert re.search(r"path: /\^\\/orders\$/", SOURCES["app.js"])
    assert shown[1] == "#/orders"


def test_an_order_is_sent_as_the_api_reads_it() -> None:
    source = SOURCES["checkout.js"]
    for sent in (r"promo \? \{ ([\w, ]+) \}", r"\} : \{ ([\w, ]+) \}\)"):
        found = re.search(sent, source)
        assert found
        assert names(found[1]) <= set(orders.NewOrder.__struct_fields__)
    (line,) = re.findall(r"\(line\) => \(\{ (.*?) \}\)", source)
    assert {part.partition(":")[0] for part in line.split(", ")} == set(orders.Wanted.__struct_fields__)
    most = re.search(r"const MOST_PROMO = (\d+);", SOURCES["view-cart.js"])
    assert most
    cart = {"lines": [{"product_id": 1, "quantity": 1}], "provider": "balance"}
    assert msgspec.convert(cart | {"promo": "x" * int(most[1])}, orders.NewOrder).promo
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(cart | {"promo": "x" * (int(most[1]) + 1)}, orders.NewOrder)


def test_paying_again_and_cancelling_are_sent_as_the_api_reads_them() -> None:
    again = re.search(r"insist\(`pay\.\$\{id\}`, JSON\.stringify\(\{ (\w+) \}\)", SOURCES["checkout.js"])
    assert again
    assert {again[1]} == set(money.NewPayment.__struct_fields__)
    move = re.search(r"status`, \{ body: JSON\.stringify\(\{ (\w+): \"(\w+)\" \}\)", SOURCES["api.js"])
    assert move
    assert msgspec.convert({move[1]: move[2]}, moves.Move).status == "cancelled"


def test_every_call_that_pays_has_a_key() -> None:
    paying = re.findall(r'asBuyer\("POST", (?!"/api/events/|"/api/chat")[^,]+, \{(.*?)\}\)', SOURCES["api.js"])
    assert len(paying) == 2
    assert all("key" in names(options) for options in paying)


def test_events_are_asked_for_and_heard_as_the_api_tells_them() -> None:
    source = SOURCES["events.js"]
    (asked,) = re.findall(r"new EventSource\(`(/api/events)\?\$\{new URLSearchParams\(\{ (.*?) \}\)", source)
    params = inspect.signature(events.stream_events.fn).parameters
    assert (asked[0], {name.partition(":")[0] for name in names(asked[1])}) == ("/api/events", params.keys() - OURS)
    kinds = set(re.findall(r'addEventListener\("(\w+)", \(event\)', source))
    assert kinds == set(re.findall(r'_from_now\(b"(\w+)"\)', text("app/flows/follow.py")))


def test_the_boards_that_it_asks_for_exist() -> None:
    (listed,) = re.findall(r"^const PERIODS = (\[.*\]);", SOURCES["view-savers.js"], re.MULTILINE)
    assert {period for period, _ in json.loads(listed)} == set(leaderboard.PERIODS)


@pytest.mark.parametrize(
    ("file", "taken", "kind"),
    [
        ("view-balance.js", r"const \{ ([^}]+) \} = funds", money.Funds),
        ("view-balance.js", r"function purse\(\{ ([^}]+) \}\)", ledger.Balance),
        ("view-balance.js", r"function entry\(\{ ([^}]+) \}\)", money.Posted),
        ("view-invite.js", r"function linkPanel\(\{ ([^}]+) \}", growth.Referrals),
        ("view-invite.js", r"function levelRow\(\{ ([^}]+) \}\)", growth.Level),
        ("view-invite.js", r"const \{ ([^}]+) \} of levels", growth.Earned),
        ("view-savers.js", r"function board\(\{ ([^}]+) \}\)", growth.Leaderboard),
        ("view-savers.js", r"function ownPlace\(\{ ([^}]+) \}", growth.Own),
        ("ways.js", r"\.filter\(\(\{ ([^}]+) \}\) =>", shop.Way),
    ],
)
def test_what_is_taken_out_of_an_answer_is_in_it(file: str, taken: str, kind: type[msgspec.Struct]) -> None:
    found = re.search(taken, SOURCES[file])
    assert found
    assert {name.partition(":")[0] for name in names(found[1])} <= set(kind.__struct_fields__)


def test_a_review_is_sent_as_the_api_reads_it() -> None:
    source = SOURCES["view-rate.js"]
    sent = re.search(r"const given = \{ (\w+): .*, (\w+): .* \};", source)
    assert sent
    assert set(sent.groups()) == set(Written.__struct_fields__)
    assert f"const MOST_TEXT = {reviews.MAX_TEXT};" in source
    (stars,) = re.findall(r"\[\d(?:, \d)+\]", source)
    assert [msgspec.convert({"rating": n}, Written).rating for n in json.loads(stars)] == [1, 2, 3, 4, 5]
    for beyond in (0, 6):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"rating": beyond}, Written)


@pytest.mark.parametrize(
    ("file", "holder", "kind"),
    [
        ("reviews.js", "page", ReviewList),
        ("reviews.js", "one", msgspec.structs.fields(ReviewList)[2].type.__args__[0]),
        ("view-product.js", "item", present.Product),
        ("view-order.js", "o", orders.Order),
        ("order-pay.js", "o", orders.Order),
        ("order-pay.js", "open", orders.Payment),
        ("view-savers.js", "place", growth.Place),
        ("ways.js", r"me\.value", shop.Me),
        ("ways.js", r"own\.value", money.Funds),
    ],
)
def test_what_is_read_of_an_answer_is_in_it(file: str, holder: str, kind: type[msgspec.Struct]) -> None:
    read = set(re.findall(rf"(?<![\w.]){holder}\.(\w+)", SOURCES[file]))
    assert read
    assert read <= set(kind.__struct_fields__)
