"""Patterns of advert topics over folded text. A match is a hint, no proof.

Repetitions are bounded, which keeps matching linear in the length of a hostile text.
"""

import re

_REST_OF_WORD = r"\w{0,20}"


def _any_of(*patterns: str) -> re.Pattern[str]:
    """Joins alternatives into one pattern; `~` stands for any ending of a word."""
    return re.compile("|".join(patterns).replace("~", _REST_OF_WORD))


_AMOUNT = r"\d[\d .,]{0,12}"
_CURRENCY = r"(?:usdt|usd|eur|euros?|dollars?|bucks|руб~|р|тыс~|доллар~|евро|бакс~|грн|тенге|долл)\b"
_PERIOD = r"(?:день|дн~|сутки|час|недел~|смен~|day|week|hour|shift)\b"
_PRIVATELY = r"(?:\bл\.?\s?с\.?(?!\w)|личк|личн~ сообщ|\bдирект|@\w)"

MONEY = _any_of(
    rf"[$€£₽₴₸₿]\s?{_AMOUNT}",
    rf"\b(?:usdt|usd|eur)\s?{_AMOUNT}",
    rf"{_AMOUNT}\s?[kк]?\+?\s?(?:[$€£₽₴₸₿%]|{_CURRENCY})",
)
DAILY_PAY = _any_of(
    rf"(?:[$€£₽₴₸₿\d]|\d\s?[kк]|{_CURRENCY})\+?\s?(?:(?:в|за|/|per|a|an|each|every|кажд~)\s?{_PERIOD}|daily|weekly|hourly"
    r"|ежедневно)",
)
CONTACT_CALL = _any_of(
    rf"\b(?:пиш|напиш|стуч|обращ|жду|ответ|подробност|детал|инф)[^.!?\n]{{0,40}}{_PRIVATELY}",
    r"\b(?:пиши|пишите|напишите|напиши|ставь|ставьте|жми|жмите)\s?[\"'«(]?\s?(?:\+|плюс)",
    r"\b(?:dm|pm|message|msg|text|write|contact|inbox|whatsapp|hit)\s(?:me|us|to me|up)\b",
    r"\binbox\b",
    r"\bin dms?\b",
    r"\bfor (?:details|more info)\b",
)
JOB_LURE = _any_of(
    r"удаленн~ (?:работ|заработ|подработ|занятост|доход)",
    r"без опыта",
    r"пассивн~ доход",
    r"легк~ (?:деньг|заработ)",
    r"\b(?:набира|ищ|треб)~ (?:[\w-]{1,25} ){0,3}(?:люд|человек|сотрудник|партнер|курьер|команд)",
    r"ежедневн~ (?:выплат|доход|оплат)",
    r"выплат~ (?:каждый день|ежедневно)",
    r"подработк",
    r"заработ~ от\b",
    r"\bwork from home\b",
    r"\bpassive income\b",
    r"\bno experience\b",
    r"\bextra (?:income|cash|money)\b",
    r"\bearn (?:up to|from|\$)",
    r"\b(?:hiring|looking for) (?:[\w-]{1,25} ){0,3}(?:people|partners|assistants?|team)\b",
    r"\bdaily pay",
    r"\bquick money\b",
)
CRYPTO_LURE = _any_of(
    r"\bairdrop",
    r"\b(?:аир|эйр)дроп",
    r"\bpresale\b",
    r"\b(?:seed|recovery) phrase\b",
    r"\bсид[- ]фраз",
    r"\bp2p\b",
    r"\bарбитраж",
    r"\bcrypto signals?\b",
    r"\bсигнал~ (?:по )?(?:крипт|трейд)",
    r"\bguaranteed (?:profit|return|income)s?\b",
    r"\bгарантированн~ (?:прибыл|доход)",
    r"\bconnect (?:your )?wallet\b",
    r"\bclaim (?:your )?(?:tokens?|reward|bonus|nft)",
    r"\bдоходност~ (?:от )?\d",
    r"\b\d{1,4} ?% (?:в|за|per|a) (?:день|сутки|недел|месяц|day|week|month)",
)
GAMBLING_LURE = _any_of(
    r"\bказино\b",
    r"\bcasino",
    r"\bфриспин",
    r"\bfree ?spins?\b",
    r"\bставк~ на спорт",
    r"\bпромокод",
    r"\bbetting\b",
    r"\bjackpot\b",
    r"\bджекпот",
    r"\bигров~ автомат",
    r"\bслот~ (?:бонус|онлайн)",
    r"\bslots? (?:bonus|game)",
    r"\b1x(?:bet|win)\b",
    r"\bдоговорн~ матч",
    r"\bfixed match",
)
ADULT_LURE = _any_of(
    r"\b(?:интим|шлюх|проститут|эскорт|порн)",
    r"\bсекс[- ]?(?:чат|знаком|видео|услуг|встреч)",
    r"\b18\+",
    r"\b(?:слив|фото|видео)~ (?:\w{1,20} )?(?:голы|интим|девуш~ 18)",
    r"\b(?:nudes?|porn|onlyfans|escorts?|xxx)\b",
    r"\bhot (?:girls?|milfs?|singles?|babes?)\b",
    r"\bsex (?:chat|cam|dating)\b",
    r"🔞",
    r"🍑.{0,20}💦",
)
