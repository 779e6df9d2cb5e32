// Words for what the server names by a word of its own: [English, Russian, Ukrainian].

export const STATUSES = {
  pending: ["Awaiting payment", "Ждёт оплаты", "Очікує оплати"],
  payment_pending: ["Awaiting payment", "Ждёт оплаты", "Очікує оплати"],
  paid: ["Paid", "Оплачен", "Сплачено"],
  preorder: ["Being made", "Готовится", "Готується"],
  delivered: ["Delivered", "Доставлен", "Доставлено"],
  partially_delivered: ["Partly delivered", "Доставлен частично", "Доставлено частково"],
  shipped: ["Shipped", "Отправлен", "Відправлено"],
  completed: ["Completed", "Завершён", "Завершено"],
  cancelled: ["Cancelled", "Отменён", "Скасовано"],
  expired: ["Expired", "Истёк", "Прострочено"],
  refunded: ["Refunded", "Деньги возвращены", "Гроші повернено"],
  partially_refunded: ["Partly refunded", "Возвращён частично", "Повернено частково"],
  confirmed: ["Confirmed", "Подтверждён", "Підтверджено"],
  preparing: ["Being prepared", "Собирается", "Збирається"],
  ready_for_pickup: ["Ready for pickup", "Готов к выдаче", "Готово до видачі"],
  in_delivery: ["On its way", "В пути", "У дорозі"],
  reviewing: ["Being reviewed", "На проверке", "На перевірці"],
  issue_reported: ["Issue reported", "Есть проблема", "Є проблема"],
  locked: ["On hold", "Приостановлен", "Призупинено"],
};

export const SAID = {
  pending: ["This page notices your payment by itself; you can leave it open.", "Страница сама увидит оплату; её можно не закрывать.", "Сторінка сама побачить оплату; її можна не закривати."],
  paid: ["Payment received. Your goods are on their way to this page.", "Оплата получена. Товары сейчас появятся на этой странице.", "Оплату отримано. Товари зараз з’являться на цій сторінці."],
  preorder: ["Payment received. The seller is making your order.", "Оплата получена. Продавец готовит ваш заказ.", "Оплату отримано. Продавець готує ваше замовлення."],
  delivered: ["All done. Thank you for your purchase!", "Готово. Спасибо за покупку!", "Готово. Дякуємо за покупку!"],
  shipped: ["The seller has sent your order.", "Продавец отправил ваш заказ.", "Продавець відправив ваше замовлення."],
  confirmed: ["The seller has confirmed your order and prepares it.", "Продавец подтвердил заказ и готовит его.", "Продавець підтвердив замовлення й готує його."],
  ready_for_pickup: ["Your order is ready, you can pick it up.", "Заказ готов, его можно забрать.", "Замовлення готове, його можна забрати."],
  cancelled: ["This order was cancelled, its goods are for sale again.", "Этот заказ отменён, товары снова в продаже.", "Це замовлення скасовано, товари знову в продажу."],
  expired: ["The time to pay ran out and the goods were released. If you did pay, the money is not lost: this page will show it.", "Время на оплату вышло, товары больше не отложены. Если вы заплатили, деньги не пропадут: это будет видно здесь.", "Час на оплату вийшов, товари більше не відкладено. Якщо ви заплатили, гроші не пропадуть: це буде видно тут."],
  refunded: ["The money for this order was returned: it is on your balance, or on its way to where you paid from.", "Деньги за этот заказ возвращены: они на вашем балансе или идут туда, откуда вы платили.", "Гроші за це замовлення повернено: вони на вашому балансі або йдуть туди, звідки ви платили."],
  partially_refunded: ["Part of the money was returned: it is on your balance, or on its way to where you paid from.", "Часть денег возвращена: они на вашем балансе или идут туда, откуда вы платили.", "Частину грошей повернено: вони на вашому балансі або йдуть туди, звідки ви платили."],
};

// Ways to pay, by the gateway's name.
export const WAYS = {
  crystalpay: ["CrystalPay", "CrystalPay", "CrystalPay"],
  aaio: ["AAIO", "AAIO", "AAIO"],
  yookassa: ["YooKassa", "ЮKassa", "ЮKassa"],
  cryptopay: ["Crypto Bot", "Crypto Bot", "Crypto Bot"],
  balance: ["Balance", "Баланс", "Баланс"],
};

const MANY = ["Cards, wallets, cryptocurrency", "Карты, кошельки, криптовалюта", "Картки, гаманці, криптовалюта"];

export const WAY_HINTS = {
  crystalpay: MANY,
  aaio: MANY,
  yookassa: ["Bank cards and more", "Банковские карты и другое", "Банківські картки та інше"],
  cryptopay: ["Cryptocurrency, in Telegram", "Криптовалюта, прямо в Telegram", "Криптовалюта, просто в Telegram"],
};

// Lines of the balance's statement, as postings spell their reason.
export const REASONS = {
  sale: ["Purchase", "Покупка", "Покупка"],
  overpaid: ["Paid more than the price", "Переплата", "Переплата"],
  underpaid: ["Part payment", "Частичная оплата", "Часткова оплата"],
  late: ["Paid after the time ran out", "Оплата после срока", "Оплата після строку"],
  late_part: ["Part paid after the time ran out", "Часть оплаты после срока", "Частина оплати після строку"],
  second: ["Paid twice", "Повторная оплата", "Повторна оплата"],
  cancelled: ["Paid for a cancelled order", "Оплата отменённого заказа", "Оплата скасованого замовлення"],
  from_balance: ["Paid from the balance", "Оплата с баланса", "Оплата з балансу"],
  refund: ["Refund", "Возврат", "Повернення"],
  chargeback: ["Payment taken back", "Платёж отозван", "Платіж відкликано"],
  bonus: ["Bonus for an invitation", "Бонус за приглашение", "Бонус за запрошення"],
  clawback: ["Bonus taken back: a refund", "Бонус отменён: возврат", "Бонус скасовано: повернення"],
  repaid: ["Debt paid off", "Погашение долга", "Погашення боргу"],
  cashback: ["Cashback for a review", "Кешбэк за отзыв", "Кешбек за відгук"],
};

// Why a promo code cannot be used.
export const REFUSALS = {
  unknown: ["There is no such code. Check the spelling.", "Такого промокода нет. Проверьте, нет ли опечатки.", "Такого промокоду немає. Перевірте, чи немає помилки."],
  foreign: ["It is meant for other goods.", "Он действует на другие товары.", "Він діє на інші товари."],
  not_yet: ["It is not valid yet.", "Он ещё не действует.", "Він ще не діє."],
  ended: ["It has ended.", "Срок его действия закончился.", "Строк його дії закінчився."],
  used: ["You have used it already.", "Вы его уже использовали.", "Ви його вже використали."],
  exhausted: ["Others have used it up.", "Его уже полностью использовали.", "Його вже повністю використали."],
};
