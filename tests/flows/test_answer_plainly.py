"""The consultant without a model: what it makes of a buyer's words, and what it answers in three languages."""

import msgspec
import pytest

from app.channels import sayings
from app.flows import checkout
from app.flows.answer_plainly import Plain, answer_plainly
from app.flows.consult import Question, consult
from app.flows.understand import Wish, begun, telling, wish
from tests.flows.test_checkout import users, want
from tests.world import World


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hello", Wish.GREETING), ("Привет!", Wish.GREETING), ("Доброго дня", Wish.GREETING), ("", Wish.GREETING),
        ("🙂", Wish.GREETING), ("help", Wish.GREETING), ("how much is it please", Wish.GREETING),
        ("where is my order?", Wish.ORDERS), ("Мои заказы", Wish.ORDERS), ("а где мой заказ", Wish.ORDERS),
        ("статус заказа", Wish.ORDERS), ("Де моє замовлення?", Wish.ORDERS), ("order status", Wish.ORDERS),
        ("I want to talk to a human", Wish.HUMAN), ("позовите оператора", Wish.HUMAN), ("Покличте людину", Wish.HUMAN),
        ("What is on sale?", Wish.SHELF), ("Что есть в продаже?", Wish.SHELF), ("Що є в продажу?", Wish.SHELF),
        ("Something for a gift", Wish.SHELF), ("Что-нибудь в подарок", Wish.SHELF), ("Щось у подарунок", Wish.SHELF),
        ("hello, what do you have?", Wish.SHELF), ("а что у вас есть", Wish.SHELF), ("посоветуйте", Wish.SHELF),
        ("gift card", Wish.SEARCH), ("что есть для windows в наличии", Wish.SEARCH), ("порадьте книгу", Wish.SEARCH),
        ("I want to order a windows key", Wish.SEARCH), ("хочу заказать ключ", Wish.SEARCH),
        ("замовити ключ", Wish.SEARCH), ("hello, do you have office?", Wish.SEARCH),
        ("книга о том, как человек с оператором ищет мой заказ в поле", Wish.SEARCH),
    ],
)  # fmt: skip
def test_what_a_buyer_means(text: str, meant: Wish) -> None:
    assert wish(text) is meant


def test_the_words_that_tell_are_found_in_any_company() -> None:
    assert telling("Hello! Could you please tell me how much the Windows 11 key would be") == [
        "tell",
        "windows",
        "11",
        "key",
    ]
    assert telling("Здравствуйте, подскажите, есть ли у вас ещё ключи для Windows?")[-2:] == ["ключи", "windows"]
    assert [begun(word) for word in ("key", "ключи", "книгами", "11")] == ["key", "ключ", "книга", "11"]


async def ask(world: World, user_id: int, text: str, language: str = "en") -> Plain:
    return await answer_plainly(world.shop, user_id, language, text)


async def test_goods_are_told_with_price_and_what_is_left_and_offered(world: World) -> None:
    key = await world.product("A", "B", title="Windows 11 Key", price_minor=25_000, discount_bp=1000)
    guide = await world.product(title="Windows Guide", kind="shared")
    (ann,) = await users(world, 1)
    answer = await ask(world, ann, "do you have anything for Windows?")
    lines = {"• Windows 11 Key: 225.00 RUB, 2 left", "• Windows Guide: 100.00 RUB"}
    head, *told = answer.text.split("\n")
    assert (head, set(told), answer.quality) == ("This is what we have:", lines, 0.8)
    assert {(offer.product_id, offer.price_minor, offer.quantity) for offer in answer.offers} == {
        (key, 22_500, 1), (guide, 10_000, 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("language", "text", "told"),
    [
        ("ru", "нужны ключи для Windows", "Вот что у нас есть:\n• Ключ Windows: 100.00 RUB, осталось 1"),
        ("uk", "потрібні ключі для віндовс windows", "Ось що в нас є:\n• Ключ Windows: 100.00 RUB, залишилося 1"),
        ("pt-br", "windows", "This is what we have:\n• Ключ Windows: 100.00 RUB, 1 left"),
    ],
)
async def test_each_in_its_language_and_whatever_the_ending(world: World, language: str, text: str, told: str) -> None:
    await world.product("A", title="Ключ Windows")
    (ann,) = await users(world, 1)
    assert (await ask(world, ann, text, language)).text == told


async def test_stock_is_live_and_not_the_shelfs_copy(world: World) -> None:
    product = await world.product("A", title="Windows Key")
    (ann,) = await users(world, 1)
    assert len((await ask(world, ann, "windows")).offers) == 1
    await world.pg.fetch("UPDATE stock_items SET state = 'sold' WHERE product_id = $1", (product,))
    answer = await ask(world, ann, "windows")  # the copies still say that one is left
    assert (answer.offers, answer.quality) == ([], 0.5)
    assert answer.text == "What fits is sold out at the moment:\n• Windows Key: sold out"


async def test_what_is_sold_out_is_made_up_for_by_what_is_alike(world: World) -> None:
    await world.product(title="Windows Pro Key")
    await world.product("A", title="Windows Home Key")
    (ann,) = await users(world, 1)
    answer = await ask(world, ann, "windows pro key")
    assert [offer.title for offer in answer.offers] == ["Windows Home Key"]


async def test_at_most_three_offers(world: World) -> None:
    for n in range(8):
        await world.product("A", title=f"Windows Key {n}")
    (ann,) = await users(world, 1)
    answer = await ask(world, ann, "windows")
    assert (len(answer.offers), len(answer.text.split("\n"))) == (3, 7)


async def test_who_asks_what_there_is_sees_the_shelf(world: World) -> None:
    await world.product(title="Office Key")
    await world.product("A", title="Windows Key")
    (ann,) = await users(world, 1)
    answer = await ask(world, ann, "Что есть в продаже?", "ru")
    assert (answer.text, answer.quality) == ("Вот что у нас есть:\n• Windows Key: 100.00 RUB, осталось 1", 0.8)
    assert [offer.title for offer in answer.offers] == ["Windows Key"]


async def test_nothing_found_is_said_and_worth_little(world: World) -> None:
    await world.product("A")
    (ann,) = await users(world, 1)
    assert await ask(world, ann, "banana") == Plain(sayings.nothing("en"), 0.3)
    assert await ask(world, ann, "'); DROP TABLE products --\0 <b> %s {} \\") == Plain(sayings.nothing("en"), 0.3)


async def test_orders_are_the_buyers_own(world: World) -> None:
    product = await world.product("A", "B")
    ann, bob = await users(world, 2)
    placed = await checkout.place(world.shop, want(ann, (product, 1)))
    assert (await ask(world, ann, "где мой заказ", "ru")).text == (
        f"Ваши заказы:\n№ {placed.order.number}: ждёт оплаты, 100.00 RUB"
    )
    assert (await ask(world, bob, "my orders")).text == "You have no orders yet."


async def test_small_talk_and_humans(world: World) -> None:
    (ann,) = await users(world, 1)
    assert (await ask(world, ann, "Привіт", "uk")).text == sayings.greeting("uk")
    assert await ask(world, ann, "a human please") == Plain(sayings.human("en"), 0.9, hand_over=True)


async def test_the_same_one_after_another(world: World) -> None:
    await world.product("A", title="Windows Key")
    await world.product("A", title="Office Key")
    (ann,) = await users(world, 1)
    deps = world.shop.deps
    serial = msgspec.structs.replace(
        world.shop,
        deps=msgspec.structs.replace(deps, settings=msgspec.structs.replace(deps.settings, parallel=False)),
    )
    for text in ("windows or office key", "office", "banana"):
        one, other = await ask(world, ann, text), await answer_plainly(serial, ann, "en", text)
        assert (one.text, one.quality) == (other.text, other.quality)


async def test_without_a_model_the_answer_is_shown_whole(world: World) -> None:
    (ann,) = await users(world, 1)
    shown: list[str] = []

    async def show(piece: str) -> None:
        shown.append(piece)

    answer = await consult(world.shop, Question(1, ann, "en", "hello", []), show)
    assert (answer.by, shown) == ("search", [answer.text])


async def test_without_redis_it_answers_all_the_same(world: World) -> None:
    await world.product("A", title="Windows Key")
    (ann,) = await users(world, 1)
    await world.shop.deps.redis.aclose()
    assert [offer.title for offer in (await ask(world, ann, "windows")).offers] == ["Windows Key"]


def test_every_status_has_words() -> None:
    for status in sayings._STATUS:
        for language in sayings.NAMES:
            assert sayings.orders(language, [(1, status, "1.00 RUB")])


async def test_no_order_has_a_status_without_words(world: World) -> None:
    rows = await world.pg.fetch(STATUSES, ())
    assert {name for row in rows for name in row[0]} <= set(sayings._STATUS)


STATUSES = """
SELECT array(SELECT m[1] FROM regexp_matches(pg_get_constraintdef(c.oid), '''([a-z_]+)''::text', 'g') m)
  FROM pg_constraint c WHERE c.conrelid = 'orders'::regclass AND pg_get_constraintdef(c.oid) LIKE '%''pending''%'
UNION ALL SELECT array(SELECT from_status FROM order_moves UNION SELECT to_status FROM order_moves)"""
