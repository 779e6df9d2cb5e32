"""The Mini App's page as it is written: no build step and no test runner look at it, so this does.

What it takes from its own files, from its words in three languages and from the API has to be there.
"""

import json
import re

import msgspec
import pytest
from litestar.routes import HTTPRoute

from app import errors
from app.domain import reviews
from app.main import create_app
from app.web import orders, shop
from app.web.front import PAGE
from app.web.reviews import ReviewList, Written
from tests.world import settings_for

SOURCES = {path.name: path.read_text() for path in sorted(PAGE.glob("*.js"))}
CODE = "\n".join(SOURCES.values())
INDEX = (PAGE / "index.html").read_text()
LANGUAGES = 3
STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


def words(name: str) -> dict[str, list[str | dict[str, str]]]:
    """A table of i18n.js, which is JSON but for bare keys, comments and trailing commas."""
    table = re.search(rf"^const {name} = (\{{\n.*?^\}});", SOURCES["i18n.js"], re.MULTILINE | re.DOTALL)
    assert table
    said = STRING.findall(table[1])
    bare = re.sub(r"//.*", "", STRING.sub("@", table[1]))
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


def test_text_never_becomes_markup_and_nothing_needs_a_looser_policy() -> None:
    markup = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
        r"|\beval\b|new Function|\bstyle: \"(?!currency\b|unit\b|percent\b)|setAttribute\(\"style|javascript:"
    )
    assert markup.findall(re.sub(r"//.*", "", CODE)) == []
    assert re.findall(r"\son\w+=|\sstyle=|<style|<script(?! type=\"module\" src=)", INDEX) == []


def test_every_icon_is_drawn() -> None:
    drawn = set(re.findall(r'^  (\w+): "M', SOURCES["dom.js"], re.MULTILINE))
    asked = set(re.findall(r'\b(?:icon|blank)\("(\w+)"', CODE))
    assert asked >= {"star", "cart"}
    assert asked <= drawn


# Its words.


@pytest.mark.parametrize("table", ["WORDS", "STATUSES", "SAID"])
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
    others = "\n".join(source for name, source in SOURCES.items() if name != "i18n.js")
    known = words("WORDS").keys()
    asked = set(re.findall(r'\bt\("(\w+)"', others))
    assert asked >= {"rateIt", "reviews", "total"}
    assert asked <= known
    computed = {"unit", "shared", "made", "shipped", "rateItNamed", "rateAgainNamed"}  # t(kind), t(`${word}Named`)
    named = {key for key in known if f'"{key}"' in others}
    assert {key for key in known - named - computed if not key.startswith("how_")} == set()


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
    assert explained <= types(errors.Problem)


def test_a_full_cart_of_unpaid_orders_leads_to_the_orders() -> None:
    shown = re.search(
        rf'"{errors.TooManyPending.type}" && linkButton\("([^"]+)", t\("toOrders"\)', SOURCES["view-cart.js"]
    )
    assert shown
    assert re.search(r"path: /\^\\/orders\$/", SOURCES["app.js"])
    assert shown[1] == "#/orders"


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
        ("view-product.js", "item", shop.Product),
        ("view-order.js", "o", orders.Order),
    ],
)
def test_what_is_read_of_an_answer_is_in_it(file: str, holder: str, kind: type[msgspec.Struct]) -> None:
    read = set(re.findall(rf"(?<![\w.]){holder}\.(\w+)", SOURCES[file]))
    assert read
    assert read <= set(kind.__struct_fields__)
