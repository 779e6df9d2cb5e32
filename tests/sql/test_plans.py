"""How Postgres reads for each statement: by an index, and never a whole table that grows with the shop.

Plans are generic ones, made without knowing the arguments: what a prepared statement ends up with.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from app.infra.sql import Query
from tests.sql.noun import NEEDS, written

HOT = (
    "catalog/place_products", "catalog/list_products", "catalog/search_products", "catalog/get_product",
    "customers/find_recipient", "goods/read_goods", "inbox/store_event", "inbox/ignore_event", "orders/create_order",
    "orders/find_repeat", "orders/count_pending",
    "orders/get_order", "orders/link_order", "orders/list_orders", "orders/deliver_order", "orders/expire_orders",
    "leaderboard/sum_savings", "leaderboard/sum_own", "leaderboard/name_users", "promos/judge_promo",
    "referrals/reward_order", "referrals/claw_back", "referrals/count_invited", "referrals/sum_earned",
    "reviews/pay_cashback", "outbox/claim_job", "outbox/finish_job", "outbox/extend_job", "outbox/retry_job",
    "outbox/return_job", "outbox/bury_job", "dead/get_dead",
    "email/claim_emails", "email/extend_emails", "email/return_emails", "email/owe_emails", "email/list_news",
    "email/list_asked", "email/get_email", "email/ask_email", "email/confirm_email",
    "outbox/due_jobs", "payments/fail_payment", "payments/open_payment", "payments/settle_payment",
    "payments/settle_signed", "payments/due_payments", "payments/reverse_payment",
    "payments/credit_payment", "payments/close_payment", "ledger/pay_from_balance", "ledger/list_balances",
    "ledger/list_postings", "moves/move_order", "moves/get_card", "moves/find_announced",
    "orders/revive_order", "inbox/conclude_event",
    "refunds/refund_order",
    "broadcasts/find_broadcast", "broadcasts/list_recipients", "broadcasts/count_told", "broadcasts/end_turn",
    "customers/retire_customer", "customers/get_writing", "customers/wake_news",
    "endpoints/owe_calls", "endpoints/list_calls", "endpoints/find_target", "endpoints/hear_call",
    "endpoints/fail_call", "endpoints/replay_calls", "summons/hear_summons",
    "reviews/put_review", "reviews/list_reviews", "stock/count_units",
    "conversations/open_conversation", "conversations/show_latest", "conversations/note_turn",
    "conversations/claim_reply", "conversations/release_reply", "conversations/mark_sent", "talks/know_turns",
    "talks/read_histories", "talks/read_settings", "talks/read_escalations", "talks/read_interactions",
    "talks/store_turn", "talks/close_turn", "agents/list_escalated", "agents/get_conversation", "agents/list_messages",
    "agents/find_alarm", "agents/say_words", "agents/hand_back",
    "stock/quote_products", "cart/put_line", "cart/take_lines", "catalog/get_products",
)  # fmt: skip

# Read whole when that is cheaper: a few hundred short rows at most.
SMALL = {"sellers", "shared_goods", "quotas", "order_moves", "broadcasts", "channels"}

# The proof that everything adds up reads everything; it runs by command, as does the count of an admin's /stats: an
# index on when somebody last wrote would be written with every message.
PROOFS = {"ledger/check_ledger", "figures/count_talks"}

# Partial indexes of what waits to be done: they stay short however long the shop lives, and may be read whole.
WORKLISTS = {"outbox_owed", "outbox_mail", "outbox_settling", "inbox_review", "orders_unpaid"}
# work them off
SWEEPS = {"outbox/due_jobs", "email/claim_emails", "orders/expire_orders", "inbox/list_events", "figures/read_figures"}

# A shop after some months: 1,500 products, 24,000 units of which most are sold, 12,000 orders, hardly a job owed.
MONTHS = """
SET session_replication_role = replica;  -- no foreign key checks: this is about statistics
INSERT INTO sellers (name) SELECT 'seller' FROM generate_series(1, 20);
INSERT INTO users (telegram_id, name) SELECT n, 'user' FROM generate_series(1, 2000) n;
INSERT INTO products (seller_id, title, category, kind, currency, list_price_minor, lead_time_h)
SELECT 1 + n % 20, 'title', 'category ' || n % 10, (ARRAY['unit', 'unit', 'shipped', 'shared', 'made'])[1 + n % 5],
       'RUB', 1000, CASE WHEN n % 5 = 4 THEN 1 END FROM generate_series(1, 1500) n;
INSERT INTO promos (code, discount_bp, most_uses) SELECT 'CODE-' || n, 500, 100 FROM generate_series(1, 1000) n;
UPDATE users SET referrer_id = id / 3 WHERE id % 4 = 0;
INSERT INTO shared_goods SELECT id, 'sealed' FROM products WHERE kind = 'shared';
INSERT INTO stock_items (id, product_id, state, sealed, fingerprint)
SELECT gen_random_uuid(), 1 + n % 1500, CASE WHEN n < 16000 THEN 'sold' ELSE 'available' END, 'sealed', n::text::bytea
  FROM generate_series(1, 24000) n;
INSERT INTO orders (id, user_id, seller_id, status, currency, total_minor, idempotency_key, request_hash, expires_at)
SELECT gen_random_uuid(), 1 + n % 2000, 1 + n % 20, CASE WHEN n % 100 = 0 THEN 'pending' ELSE 'delivered' END, 'RUB',
       1000, n::text, sha256('x'), now() FROM generate_series(1, 12000) n;
INSERT INTO order_items
    (order_id, position, product_id, title, kind, list_price_minor, price_minor, state, delivered_at)
SELECT id, 1, 1 + number % 1500, 'title', 'made', 1000, 900, 'delivered', now() - number * interval '1 minute'
  FROM orders;
INSERT INTO order_events (order_id, to_status, role) SELECT id, 'pending', 'buyer' FROM orders;
INSERT INTO order_chat (order_id, role, text) SELECT id, 'system', 'line' FROM orders;
INSERT INTO reviews (product_id, user_id, order_id, rating)
SELECT 1 + number % 1500, min(user_id), gen_random_uuid(), 5 FROM orders GROUP BY 1, user_id;
INSERT INTO product_ratings (product_id, ratings, total)
SELECT product_id, count(*), sum(rating) FROM reviews GROUP BY 1;
INSERT INTO payments (order_id, provider, status, invoice_id, amount_minor, currency)
SELECT id, 'crystalpay', CASE WHEN status = 'pending' THEN 'open' ELSE 'paid' END, number, 1000, 'RUB' FROM orders;
INSERT INTO inbox (provider, event_key, body, headers, state)
SELECT 'crystalpay', n, 'body', '{}', 'settled' FROM generate_series(1, 12000) n;
INSERT INTO outbox (kind, key, payload, state)
SELECT (ARRAY['settle', 'deliver', 'tell'])[1 + n % 3], n, '{}', CASE WHEN n % 500 = 0 THEN 'owed' ELSE 'done' END
  FROM generate_series(1, 24000) n;
INSERT INTO cart_lines (user_id, product_id, quantity)
SELECT 1 + n % 2000, 1 + n % 1500, 1 FROM generate_series(1, 6000) n;
INSERT INTO balances (user_id, currency, balance_minor) SELECT n, 'RUB', 1 FROM generate_series(1, 2000) n;
INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
SELECT 'sale:' || number, 'buyer:' || user_id, 'sales:1', 1, 'RUB', 'from_balance', id, user_id FROM orders;
INSERT INTO refunds (id, order_id, target, amount_minor, currency, state, reason, key)
SELECT gen_random_uuid(), id, 'balance', 1, 'RUB', 'done', 'admin', 'key' FROM orders;
INSERT INTO made_goods (order_id, position, sealed) SELECT id, 1, 'sealed' FROM orders;
INSERT INTO endpoints (id, seller_id, url, sealed)
SELECT gen_random_uuid(), 1 + n % 20, 'https://a.example/', 's' FROM generate_series(1, 1000) n;
INSERT INTO outbox (kind, key, payload, state)
SELECT 'hook', 'evt_' || n, jsonb_build_object('endpoint_id', n % 1000), 'done' FROM generate_series(1, 12000) n;
UPDATE users SET whatsapp = 380000000000 + id WHERE id % 3 = 0;
INSERT INTO conversations (channel_id, peer, user_id, escalated_at, escalation)
SELECT 1, n, n, CASE WHEN n % 100 = 0 THEN now() END, CASE WHEN n % 100 = 0 THEN 'user_request' END
  FROM generate_series(1, 2000) n;
INSERT INTO turns (id, conversation_id, state, question, answer, created_at)
SELECT gen_random_uuid(), 1 + n % 2000, 'answered', 'question', 'answer', now() - n * interval '5 minutes'
  FROM generate_series(1, 12000) n;
INSERT INTO messages (conversation_id, turn_id, role, text, external_id, at)
SELECT conversation_id, id, 'user', question, id, created_at FROM turns;
INSERT INTO messages (conversation_id, turn_id, role, text, at)
SELECT conversation_id, id, 'assistant', answer, created_at FROM turns;
INSERT INTO summons (id, expires_at) SELECT n, now() FROM generate_series(1, 5000) n;
SET session_replication_role = origin;
INSERT INTO referral_bonuses (order_id, level, user_id, amount_minor, currency)
SELECT id, 1, user_id, 100, 'RUB' FROM orders WHERE number % 3 = 0;
ANALYZE;
"""


@pytest.fixture
async def planner(pg_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(pg_url)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    yield connection
    await connection.close()


async def scans(planner: "asyncpg.Connection[asyncpg.Record]", query: Query) -> list[dict[str, Any]]:
    """Each scan of the statement's plan."""
    await planner.execute(f"PREPARE planned AS {query.text}")
    args = f"({', '.join(['NULL'] * len(query.params))})" if query.params else ""
    (plan,) = json.loads(await planner.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE planned{args}"))
    await planner.execute("DEALLOCATE planned")
    return [node for node in nodes(plan["Plan"]) if node["Node Type"].endswith("Scan")]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def test_every_table_of_every_statement_has_an_index_path(
    planner: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await planner.execute("SET enable_seqscan = off")
    whole = {
        (path, node["Relation Name"])
        for path, query in written().items()
        if path not in NEEDS and path not in PROOFS
        for node in await scans(planner, query)
        if node["Node Type"] == "Seq Scan"
    }
    assert whole == set()


async def test_hot_statements_do_not_slow_down_as_the_shop_grows(
    planner: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await planner.execute(MONTHS)
    found = written()
    slow = [
        (path, node["Node Type"], node.get("Relation Name") or node["Index Name"])
        for path in HOT
        for node in await scans(planner, found[path])
        if (node["Node Type"] == "Seq Scan" and node["Relation Name"] not in SMALL)
        or ("Index Name" in node and "Index Cond" not in node and node["Index Name"] not in WORKLISTS)
    ]
    assert slow == []


async def test_a_batch_of_callbacks_looks_each_order_up_by_its_id(
    planner: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    """Joined the other way round, every pending order of the shop is read for each batch (measured: 230 ms for 64)."""
    await planner.execute(MONTHS)
    found = await scans(planner, written()["payments/settle_signed"])
    assert {node["Index Name"] for node in found if node.get("Relation Name") == "orders"} == {"orders_pkey"}


async def test_a_scrape_reads_what_waits_and_the_newest_moves_and_no_table_whole(
    planner: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await planner.execute(MONTHS)
    found = await scans(planner, written()["figures/read_figures"])
    assert [node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"] == []
    # Of these whole: the first two are worklists, of the third the end is read.
    whole = {node["Index Name"] for node in found if "Index Name" in node and "Index Cond" not in node}
    assert whole <= {"outbox_owed", "inbox_review", "order_events_pkey"}


async def test_who_has_written_for_years_is_read_as_fast_as_who_is_new(
    planner: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    """What is asked for bounds the look at the index itself, and is not sorted out afterwards."""
    await planner.execute(MONTHS)
    for path, *conditions in (
        ("talks/know_turns", "at > (now() - ", "external_id = "), ("talks/read_interactions", "created_at >= "),
        ("agents/list_messages", "conversation_id = $1"),
    ):  # fmt: skip
        looks = " ".join(node.get("Index Cond", "") for node in await scans(planner, written()[path]))
        assert [condition for condition in conditions if condition not in looks] == [], (path, looks)


async def test_a_crowd_after_a_quiet_night_is_not_read_for_each_of_its_orders(
    planner: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    """Statistics that know of nothing pending make a list of what is pending look shorter than one look by an id.

    Measured: 14 callbacks among 4,096 pending orders took 10 ms instead of 2.5.
    """
    await planner.execute(MONTHS)
    await planner.execute("UPDATE orders SET status = 'delivered'; UPDATE outbox SET state = 'done'")
    for table in ("orders", "outbox"):
        await planner.execute(f"VACUUM ANALYZE {table}")  # what was pending is forgotten
    read = {
        (path, node["Index Name"])
        for path, query in written().items()
        if path not in NEEDS and path not in SWEEPS
        for node in await scans(planner, query)
        if node.get("Index Name") in WORKLISTS
    }
    assert read == set()


async def test_a_whole_scan_would_be_seen(planner: "asyncpg.Connection[asyncpg.Record]") -> None:
    query = Query("sum", "one", "Sum", (), "SELECT sum(total_minor) FROM orders WHERE paid_at IS NULL")
    await planner.execute("SET enable_seqscan = off")
    assert [node["Node Type"] for node in await scans(planner, query)] == ["Seq Scan"]
