// Every word of the page: [English, Russian, Ukrainian]. An object holds plural forms by Intl.PluralRules.

import { user } from "./telegram.js";

const LANGS = ["en", "ru", "uk"];
const asked = String(user.language_code ?? "").toLowerCase().split("-")[0];

export const lang = LANGS.includes(asked) ? asked : "en";

const plural = new Intl.PluralRules(lang);
const column = LANGS.indexOf(lang);

const WORDS = {
  // Shell
  shop: ["Shop", "Магазин", "Магазин"],
  cart: ["Cart", "Корзина", "Кошик"],
  orders: ["Orders", "Заказы", "Замовлення"],
  menu: ["Main menu", "Главное меню", "Головне меню"],
  skip: ["Skip to content", "К содержанию", "До вмісту"],
  back: ["Back", "Назад", "Назад"],
  retry: ["Try again", "Повторить", "Спробувати ще раз"],
  loading: ["Loading", "Загрузка", "Завантаження"],
  inCart: [
    { one: "{n} item in the cart", other: "{n} items in the cart" },
    { one: "{n} товар в корзине", few: "{n} товара в корзине", other: "{n} товаров в корзине" },
    { one: "{n} товар у кошику", few: "{n} товари в кошику", other: "{n} товарів у кошику" },
  ],
  noTelegram: [
    "You are looking around as a guest. Open this shop from Telegram to buy.",
    "Вы смотрите как гость. Чтобы купить, откройте магазин из Telegram.",
    "Ви переглядаєте як гість. Щоб купити, відкрийте магазин із Telegram.",
  ],
  backToTelegram: [
    "Go back to Telegram: your order is there",
    "Вернитесь в Telegram: ваш заказ там",
    "Поверніться до Telegram: ваше замовлення там",
  ],
  backHint: ["You can close this tab.", "Эту вкладку можно закрыть.", "Цю вкладку можна закрити."],
  ended: [
    "Your visit has ended. Close the shop and open it again from Telegram; your cart is kept.",
    "Сеанс закончился. Закройте магазин и откройте его снова из Telegram: корзина сохранится.",
    "Сеанс завершено. Закрийте магазин і відкрийте його знову з Telegram: кошик збережеться.",
  ],
  offline: [
    "You are offline. The shop goes on by itself when the connection is back.",
    "Нет соединения. Магазин продолжит сам, когда оно появится.",
    "Немає з’єднання. Магазин продовжить сам, коли воно з’явиться.",
  ],

  // Catalog
  catalog: ["Catalog", "Каталог", "Каталог"],
  search: ["Search the shop", "Поиск по магазину", "Пошук у магазині"],
  clear: ["Clear the search", "Очистить поиск", "Очистити пошук"],
  categories: ["Categories", "Категории", "Категорії"],
  all: ["All", "Все", "Усі"],
  more: ["Show more", "Показать ещё", "Показати ще"],
  shown: [
    { one: "{n} product shown", other: "{n} products shown" },
    { one: "Показан {n} товар", few: "Показано {n} товара", other: "Показано {n} товаров" },
    { one: "Показано {n} товар", few: "Показано {n} товари", other: "Показано {n} товарів" },
  ],
  nothing: ["Nothing found", "Ничего не найдено", "Нічого не знайдено"],
  nothingHint: ["Try another word or another category.", "Попробуйте другое слово или другую категорию.", "Спробуйте інше слово або іншу категорію."],
  empty: ["Nothing on sale yet", "Пока ничего не продаётся", "Поки що нічого не продається"],
  emptyHint: ["Come back soon.", "Загляните позже.", "Зазирніть пізніше."],
  showAll: ["Show everything", "Показать всё", "Показати все"],
  unit: ["Instant", "Сразу", "Одразу"],
  shared: ["Download", "Файл", "Файл"],
  made: ["Made to order", "На заказ", "На замовлення"],
  shipped: ["Shipped", "Доставка", "Доставка"],
  left: ["{n} left", "осталось {n}", "залишилося {n}"],
  soldOut: ["Sold out", "Распродано", "Розпродано"],
  inStock: ["In stock", "В наличии", "Є в наявності"],
  before: ["Before: {price}", "Раньше: {price}", "Раніше: {price}"],
  addNamed: ["Add to cart: {title}", "В корзину: {title}", "У кошик: {title}"],

  // Product
  about: ["About", "Описание", "Опис"],
  seller: ["Seller", "Продавец", "Продавець"],
  stock: ["Availability", "Наличие", "Наявність"],
  delivery: ["Delivery", "Получение", "Отримання"],
  how_unit: ["Your key appears here as soon as the payment is confirmed.", "Ключ появится здесь сразу после подтверждения оплаты.", "Ключ з’явиться тут одразу після підтвердження оплати."],
  how_shared: ["Your copy appears here as soon as the payment is confirmed.", "Ваш экземпляр появится здесь сразу после подтверждения оплаты.", "Ваш примірник з’явиться тут одразу після підтвердження оплати."],
  how_made: ["Made for you within {time} of payment. Late means money back.", "Сделаем в течение {time} после оплаты. Не успеем — вернём деньги.", "Зробимо протягом {time} після оплати. Не встигнемо — повернемо гроші."],
  how_made_plain: ["Made for you after payment.", "Сделаем для вас после оплаты.", "Зробимо для вас після оплати."],
  how_shipped: ["The seller sends it after payment.", "Продавец отправит после оплаты.", "Продавець надішле після оплати."],
  add: ["Add to cart", "В корзину", "У кошик"],
  added: ["In the cart: {title}", "В корзине: {title}", "У кошику: {title}"],
  allTaken: ["That is all there is: {n}", "Больше нет: всего {n}", "Більше немає: усього {n}"],
  toCart: ["Go to cart", "К корзине", "До кошика"],
  rated: [
    { one: "Rated {rating} of 5 by {n} buyer", other: "Rated {rating} of 5 by {n} buyers" },
    { one: "Оценка {rating} из 5, её поставил {n} покупатель", few: "Оценка {rating} из 5, её поставили {n} покупателя", other: "Оценка {rating} из 5, её поставили {n} покупателей" },
    { one: "Оцінка {rating} з 5, її поставив {n} покупець", few: "Оцінка {rating} з 5, її поставили {n} покупці", other: "Оцінка {rating} з 5, її поставили {n} покупців" },
  ],
  ratings: [
    { one: "{n} rating", other: "{n} ratings" },
    { one: "{n} оценка", few: "{n} оценки", other: "{n} оценок" },
    { one: "{n} оцінка", few: "{n} оцінки", other: "{n} оцінок" },
  ],
  reviews: ["Reviews", "Отзывы", "Відгуки"],
  noReviews: ["No reviews yet.", "Отзывов пока нет.", "Відгуків поки немає."],
  starsOf: ["{n} of 5", "{n} из 5", "{n} з 5"],
  someone: ["A buyer", "Покупатель", "Покупець"],
  readAll: ["Read all of it", "Читать полностью", "Читати повністю"],
  edited: ["edited", "изменён", "змінено"],
  noProduct: ["This product is no longer on sale", "Этот товар больше не продаётся", "Цей товар більше не продається"],

  // Rating
  rateIt: ["Rate it", "Оценить", "Оцінити"],
  rateItNamed: ["Rate it: {title}", "Оценить: {title}", "Оцінити: {title}"],
  rateAgain: ["Change your rating", "Изменить оценку", "Змінити оцінку"],
  rateAgainNamed: ["Change your rating: {title}", "Изменить оценку: {title}", "Змінити оцінку: {title}"],
  yourStars: ["Your rating", "Ваша оценка", "Ваша оцінка"],
  starCount: [
    { one: "{n} star", other: "{n} stars" },
    { one: "{n} звезда", few: "{n} звезды", other: "{n} звёзд" },
    { one: "{n} зірка", few: "{n} зірки", other: "{n} зірок" },
  ],
  yourWords: ["In your words (optional)", "Своими словами (необязательно)", "Своїми словами (необов’язково)"],
  wordsNote: ["Everyone can read it, with your first name. It replaces what you wrote before.", "Это увидят все, вместе с вашим именем. Прежний ваш отзыв будет заменён.", "Це побачать усі, разом із вашим іменем. Ваш попередній відгук буде замінено."],
  send: ["Send", "Отправить", "Надіслати"],
  sending: ["Sending…", "Отправляем…", "Надсилаємо…"],
  stillSending: ["Still sending your rating…", "Оценка ещё отправляется…", "Оцінка ще надсилається…"],
  pickStars: ["Choose the stars first", "Сначала выберите звёзды", "Спершу оберіть зірки"],
  thanks: ["Thank you! Your rating counts.", "Спасибо! Ваша оценка учтена.", "Дякуємо! Вашу оцінку враховано."],
  notBuyer: ["Only buyers can rate this", "Оценить могут только покупатели", "Оцінити можуть лише покупці"],
  notBuyerHint: ["You can rate it once it has been delivered to you.", "Вы сможете оценить товар, когда получите его.", "Ви зможете оцінити товар, коли отримаєте його."],

  // Cart
  cartEmpty: ["Your cart is empty", "Корзина пуста", "Кошик порожній"],
  cartEmptyHint: ["What you choose will wait for you here.", "Здесь будет ждать то, что вы выберете.", "Тут чекатиме те, що ви оберете."],
  toShop: ["Go to the shop", "В магазин", "До магазину"],
  quantity: ["Quantity", "Количество", "Кількість"],
  fewer: ["One less: {title}", "Меньше: {title}", "Менше: {title}"],
  oneMore: ["One more: {title}", "Больше: {title}", "Більше: {title}"],
  remove: ["Remove: {title}", "Убрать: {title}", "Прибрати: {title}"],
  removed: ["Removed: {title}", "Убрано: {title}", "Прибрано: {title}"],
  each: ["{price} each", "{price} за шт.", "{price} за шт."],
  total: ["Total", "Итого", "Разом"],
  pay: ["Pay {price}", "Оплатить {price}", "Сплатити {price}"],
  placing: ["Placing your order…", "Оформляем заказ…", "Оформлюємо замовлення…"],
  stillPlacing: ["Still working on your order…", "Заказ ещё оформляется…", "Замовлення ще оформлюється…"],
  payNote: ["You pay on the payment provider’s page. Your goods are held for you while you pay.", "Оплата — на странице платёжной системы. Пока вы платите, товары отложены для вас.", "Оплата — на сторінці платіжної системи. Поки ви платите, товари відкладено для вас."],
  perSeller: ["Each seller is a separate order and payment.", "У каждого продавца — отдельный заказ и оплата.", "У кожного продавця — окреме замовлення та оплата."],
  goneForGood: ["“{title}” is no longer on sale and was removed.", "«{title}» больше не продаётся и убран из корзины.", "«{title}» більше не продається, прибрано з кошика."],
  goneSoldOut: ["“{title}” is sold out and was removed.", "«{title}» распродан и убран из корзины.", "«{title}» розпродано, прибрано з кошика."],
  lessLeft: ["“{title}”: only {n} left, the quantity was lowered.", "«{title}»: осталось только {n}, количество уменьшено.", "«{title}»: залишилося лише {n}, кількість зменшено."],
  priceChanged: ["“{title}” now costs {price}.", "«{title}» теперь стоит {price}.", "«{title}» тепер коштує {price}."],

  // Orders
  noOrders: ["No orders yet", "Заказов пока нет", "Замовлень поки немає"],
  noOrdersHint: ["Your orders and the goods you bought are kept here.", "Здесь хранятся ваши заказы и купленные товары.", "Тут зберігаються ваші замовлення й куплені товари."],
  order: ["Order № {n}", "Заказ № {n}", "Замовлення № {n}"],
  andMore: ["{title} and {n} more", "{title} и ещё {n}", "{title} та ще {n}"],
  noOrder: ["There is no such order", "Такого заказа нет", "Такого замовлення немає"],
  step1: ["Ordered", "Заказан", "Замовлено"],
  step2: ["Paid", "Оплачен", "Сплачено"],
  step3: ["Delivered", "Доставлен", "Доставлено"],
  progress: ["Progress of the order", "Ход заказа", "Перебіг замовлення"],
  heldUntil: ["Held for you until {time}", "Отложено для вас до {time}", "Відкладено для вас до {time}"],
  openPay: ["Open the payment page", "Открыть страницу оплаты", "Відкрити сторінку оплати"],
  noPayLink: ["The payment page is not ready yet. It appears here as soon as it is.", "Страница оплаты ещё не готова. Она появится здесь.", "Сторінка оплати ще не готова. Вона з’явиться тут."],
  totalMoved: ["The total is now {price}. Look it over before you pay.", "Сумма теперь {price}. Проверьте её перед оплатой.", "Сума тепер {price}. Перевірте її перед оплатою."],
  goods: ["Your goods", "Ваши товары", "Ваші товари"],
  copy: ["Copy", "Скопировать", "Скопіювати"],
  copyNamed: ["Copy: {title}", "Скопировать: {title}", "Скопіювати: {title}"],
  copied: ["Copied", "Скопировано", "Скопійовано"],
  copyFailed: ["Could not copy. The text is selected: copy it yourself.", "Не удалось скопировать. Текст выделен: скопируйте его сами.", "Не вдалося скопіювати. Текст виділено: скопіюйте його самі."],
  openLink: ["Open", "Открыть", "Відкрити"],
  owed: ["Still to come", "Ожидается", "Очікується"],
  due: ["Due by {time}", "Срок: до {time}", "Термін: до {time}"],
  dueUnknown: ["The seller will tell you when.", "Продавец сообщит срок.", "Продавець повідомить термін."],
  contents: ["In this order", "Состав заказа", "Склад замовлення"],
  placedAt: ["Placed {time}", "Оформлен {time}", "Оформлено {time}"],
  paidAt: ["Paid {time}", "Оплачен {time}", "Сплачено {time}"],

  // Errors
  failed: ["Something went wrong", "Что-то пошло не так", "Щось пішло не так"],
  failedHint: ["Nothing was charged. Please try again.", "Деньги не списаны. Попробуйте ещё раз.", "Гроші не списано. Спробуйте ще раз."],
  failedLook: ["Please try again in a moment.", "Попробуйте ещё раз чуть позже.", "Спробуйте ще раз трохи згодом."],
  unreachable: ["The shop does not answer", "Магазин не отвечает", "Магазин не відповідає"],
  unreachableHint: ["Check the connection and try again.", "Проверьте соединение и повторите.", "Перевірте з’єднання та спробуйте ще раз."],
  outOfStock: ["Someone was faster", "Кто-то успел раньше", "Хтось встиг раніше"],
  tooManyPending: ["Too many unpaid orders", "Слишком много неоплаченных заказов", "Забагато неоплачених замовлень"],
  tooManyPendingHint: ["Pay for one of them, or wait until one expires. Your cart is kept.", "Оплатите один из них или подождите, пока у одного истечёт срок. Корзина сохранится.", "Сплатіть одне з них або зачекайте, доки в одного мине строк. Кошик збережеться."],
  toOrders: ["Go to your orders", "К моим заказам", "До моїх замовлень"],
  tooFast: ["Too many requests", "Слишком много запросов", "Забагато запитів"],
  tooFastHint: ["Wait {n} s and try again.", "Подождите {n} с и повторите.", "Зачекайте {n} с і повторіть."],
  twoSellers: ["One seller per order", "Один продавец на заказ", "Один продавець на замовлення"],
  providerDown: ["The payment service is not answering", "Платёжный сервис не отвечает", "Платіжний сервіс не відповідає"],
  providerHint: ["Your order is kept. Try again: you cannot be charged twice.", "Заказ сохранён. Повторите: дважды деньги не спишутся.", "Замовлення збережено. Спробуйте ще раз: двічі гроші не спишуться."],
  busy: ["The shop is very busy", "Магазин перегружен", "Магазин перевантажено"],
  inProgress: ["Your order is still being placed", "Заказ ещё оформляется", "Замовлення ще оформлюється"],
  inProgressHint: ["Try again in a moment: it stays one order.", "Повторите через минуту: заказ останется один.", "Спробуйте за хвилину: замовлення лишиться одне."],
};

const STATUSES = {
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

const SAID = {
  pending: ["This page notices your payment by itself; you can leave it open.", "Страница сама увидит оплату; её можно не закрывать.", "Сторінка сама побачить оплату; її можна не закривати."],
  paid: ["Payment received. Your goods are on their way to this page.", "Оплата получена. Товары сейчас появятся на этой странице.", "Оплату отримано. Товари зараз з’являться на цій сторінці."],
  preorder: ["Payment received. The seller is making your order.", "Оплата получена. Продавец готовит ваш заказ.", "Оплату отримано. Продавець готує ваше замовлення."],
  delivered: ["All done. Thank you for your purchase!", "Готово. Спасибо за покупку!", "Готово. Дякуємо за покупку!"],
  shipped: ["The seller has sent your order.", "Продавец отправил ваш заказ.", "Продавець відправив ваше замовлення."],
  cancelled: ["This order was cancelled.", "Этот заказ отменён.", "Це замовлення скасовано."],
  expired: ["The time to pay ran out and the goods were released. If you did pay, the money is not lost: this page will show it.", "Время на оплату вышло, товары больше не отложены. Если вы заплатили, деньги не пропадут: это будет видно здесь.", "Час на оплату вийшов, товари більше не відкладено. Якщо ви заплатили, гроші не пропадуть: це буде видно тут."],
  refunded: ["The money for this order was returned.", "Деньги за этот заказ возвращены.", "Гроші за це замовлення повернено."],
};

export function t(key, facts = {}) {
  return fill(WORDS[key]?.[column] ?? key, facts);
}

function fill(form, facts) {
  const text = typeof form === "string" ? form : form[plural.select(facts.n ?? 0)] ?? form.other;
  return text.replace(/\{(\w+)\}/g, (hole, name) => facts[name] ?? hole);
}

// A status that this page does not know yet is shown as it is, readable.
export function statusName(status) {
  const plain = String(status).replaceAll("_", " ");
  return STATUSES[spelled(status)]?.[column] ?? plain.charAt(0).toUpperCase() + plain.slice(1);
}

export function statusSaid(status) {
  const alike = { payment_pending: "pending", completed: "delivered" }[status] ?? spelled(status);
  return SAID[alike]?.[column] ?? "";
}

export function spelled(status) {
  return status === "canceled" ? "cancelled" : status;
}
