"""What the bot says, in English."""

WORDS = {
    "start": "Hello{name}! This is the shop's bot. Write what you are looking for, or open the shop.",
    "open_shop": "Open the shop",
    "help": (
        "Write what you are looking for, and I will find it.\n\n"
        "/orders: your last orders, and what they delivered\n"
        "/language: English, Русский, Українська\n"
        "/support: a human answers\n"
        "/help: this"
    ),
    "help_admin": (
        "\n\nFor admins:\n/stats: sales and conversations\n/stock: what runs out\n/broadcast <text>: a message to all\n"
        "/dead: jobs that failed for good\n/handback <conversation>: the machine answers there again"
    ),
    "unknown": "I do not know this command. /help says which there are.",
    "only_words": "I can read only words. What are you looking for?",
    "support": "A human answers here as soon as possible.",
    "choose_language": "Which language shall I speak?",
    "language_chosen": "I speak English with you from now on.",
    "goods_again": "Order {number}: send the goods again",
    "pay_order": "Order {number}: pay {amount}",
    "no_order": "You have no such order.",
    "goods_none": "Order {number}: nothing of it has been delivered yet.",
    "goods_head": "Order {number}:",
    "goods_in_app": "Order {number}: the goods are too long for a message. They are in the shop, under your orders.",
    "offer": "{title}, {quantity} pcs.: {price}",
    "link_bad": "This link is not valid (any more). Write what you are looking for, and I will find it.",
    "gone": "This is sold out at the moment.",
    "fewer": "So many can be had now:",
    "choose_payment": "How do you want to pay {price}?",
    "by_balance": "From the balance ({amount})",
    "order": "Order {number}: {lines}. To pay: {amount}, until {until} UTC.",
    "pay_now": "Pay {amount}",
    "order_paid": "Order {number} is paid.",
    "order_over": "Order {number} cannot be paid any more.",
    "offer_unknown": "This button is not for you, or too old. Ask me for the product again.",
    "offer_expired": "This offer has ended. What it costs now:",
    "offer_stale": "The price has changed. What it costs now:",
    "too_many": "{limit} of your orders are unpaid: pay one, or wait until one expires. /orders shows them.",
    "not_enough": "That is not enough for it: {balance} of {price}. Choose another way to pay.",
    "busy": "That is being worked on. Press again in a moment.",
    "provider_down": "The payment service does not answer. Press again in a moment, or choose another way to pay.",
    "no_payment": "Nothing can be paid for here at the moment.",
    "pressed_old": "This button is too old.",
    "stats": "{currency}: today {today_orders} orders, {today}; in 7 days {week_orders} orders, {week}",
    "stats_none": "Nothing was sold in 7 days.",
    "stats_talks": "Conversations: {active} in the last 6 hours, {escalated} wait for a human",
    "stock_head": "Runs out:",
    "stock_line": "{units} × {title} (product {product_id})",
    "stock_none": "Of every product more than {most} are left.",
    "broadcast_usage": "/broadcast <text>: I show what will be sent, and you approve it.",
    "broadcast_all": "Send to all",
    "broadcast_buyers": "Send to buyers",
    "broadcast_cancel": "Cancel",
    "broadcast_started": "Broadcast {id} is under way.",
    "broadcast_cancelled": "Nothing was sent.",
    "broadcast_twice": (
        "This draft was approved before, or the same broadcast is under way. If it does not arrive, write it again."
    ),
    "dead_none": "There are no dead letters.",
    "dead_head": "Dead letters: {count}",
    "dead_line": "{id} {kind}, {died}: {error}",
    "dead_replay": "Try {id} again",
    "dead_replayed": "Job {id} is tried again.",
    "dead_gone": "{id} is no dead letter.",
    "handback_usage": "/handback <conversation number>",
    "handback_done": "The machine answers in conversation {id} again.",
    "handback_none": "No human has conversation {id}.",
}
