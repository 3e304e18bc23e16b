"""Normalisation undoes spelling tricks and keeps honest texts of any script."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.moderation.text.normalise import normalise

ZWSP, ZWNJ, ZWJ, LRM, RLO, BOM, SHY = "\u200b", "\u200c", "\u200d", "\u200e", "\u202e", "\ufeff", "\u00ad"

TRICKY = st.lists(
    st.one_of(
        st.characters(),
        st.sampled_from(list("aeopcxKаеорсхк \n.-*m´¯ёİß٪ﷺ¨ᾧ")),
        st.sampled_from([ZWSP, ZWNJ, ZWJ, LRM, RLO, BOM, SHY, "\ufe0f", "\u0301", "\u0336"]),
        st.sampled_from(["\u20e3", "\u3164", "\u2800"]),
        st.sampled_from(["👩", "❤", "🏴", "\U000e0067", "\U000e007f", "🇩", "می", "क्ष", "각", "ก", "𝐚", "Ａ", "ᴀ", "🅿"]),
    ),
    max_size=80,
).map("".join)  # fmt: skip


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("раypal", "paypal"),  # the first two letters are Cyrillic
        (f"р{ZWSP}аy{ZWNJ}p{BOM}al", "paypal"),  # with invisible characters between them
        (f"p{SHY}ay{LRM}pal", "paypal"),
        ("зapaбoтoк", "заработок"),  # Latin letters in a Russian word
        ("ЗAPAБOTOK", "заработок"),
        ("кpиптa нa xaляву", "крипта на халяву"),
        ("Kрипта", "крипта"),
        ("nодработка", "подработка"),  # a look-alike only in handwriting
        ("Your аррӏе account", "your apple account"),  # wholly Cyrillic, in an English text
        ("ΙΝΒΟΧ me now friend", "inbox me now friend"),  # wholly Greek
        ("𝐅𝐫𝐞𝐞 𝓶𝓸𝓷𝓮𝔂 ＮＯＷ Ⓝⓞⓦ", "free money now now"),
        ("ᴡᴏʀᴋ ꜰʀᴏᴍ ʜᴏᴍᴇ", "work from home"),
        ("🅿🅰🆈🅿🅰🅻", "paypal"),
        ("🅴🅰🆂🆈 🅼🅾🅽🅴🆈 🅼🅴", "easy money me"),
        ("🇪 🇦 🇸 🇾", "easy"),  # regional indicators that make no flag
        ("з а р а б о т о к", "заработок"),
        ("к.а.з.и.н.о и c-a-s-i-n-o", "казино и casino"),
        ("h̶e̶l̶l̶o̶ p̴̛̗͚r̸̢̛͓i̷̛͎͇z̵̧̢e̶̟͂", "hello prize"),
        ("ба́нк", "банк"),  # a mark of stress
        ("Ещё ЁЖ", "еще еж"),
        ("STRAẞE  Straße", "strasse strasse"),
        ("one\n\n two\u2028three\u3000four", "one two three four"),
        ("don’t don´t don't", "don't don't don't"),
        ("1️⃣0️⃣0️⃣", "100"),
    ],
)
def test_normalise_folds_tricks(written: str, folded: str) -> None:
    assert normalise(written).folded == folded


@pytest.mark.parametrize(
    "text",
    [
        "Привет, как дела? Сор и вор, сосна и роса.",  # each letter of some has a Latin double
        "у нас есть API, а MVP — нет, CAPTCHA тоже",  # foreign words whole
        "Привіт, як справи? Їжак і ґанок, об'єкт.",
        "Καλημέρα, τι κάνεις; ΑΒΓ και νερό",
        "Grüße aus Köln, schöne Straße",
        "İstanbul'da ışık, ağaç, ÇĞÖŞÜ",
        "مرحبا، كيف حالك؟ می‌خواهم",  # with a joiner that belongs there
        "שלום, מה שלומך?",
        "क्षत्रिय नमस्ते, ಕ್ಷ, ශ්‍රී ලංකා",
        "你好，我用Python写代码。ＬＩＮＥ",
        "今日はLINEで連絡してね、カラオケ",
        "한국어 안녕하세요",
        "สวัสดีครับ",
        "tiếng Việt, Ñandú, naïve, œuvre, Łódź",
        "👩‍❤️‍👨 👨‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏳️‍🌈 🇩🇪🇷🇺 👍🏽 ❤️ 1️⃣ ☺️",
        "🅿️ behind the house, blood group 🅰️, 🇺🇦🇵🇱🇩🇪 and 🇫🇷",
        "µTorrent, 5 кОм, 10 kΩ, ΔT, x² + y²",
        "VPNом, iPhoneов, VPNа, SMMщик, it-шник, wi-fi-роутер",  # names with endings
        r"¯\_(ツ)_/¯ ಠ_ಠ (╯°□°)╯",
        "a + b = c; x, y, z; J. R. R. Tolkien",
        "for i in range(10):\n    print(f'{i}: α')",
    ],
)
def test_normalise_reports_nothing_in_honest_text(text: str) -> None:
    normal = normalise(text)
    assert normal.mixed_words == ()
    assert normal.hidden == 0


@pytest.mark.parametrize(
    "text",
    [
        "привет, сор, вор и роса",
        "привіт, їжак",
        "καλημέρα νερό",
        "grüsse aus köln",
        "istanbul ışık",
        "你好我用python写代码",
        "한국어 안녕하세요",
        "क्षत्रिय नमस्ते",
        "สวัสดีครับ",
        "tiếng việt ñandú łódź",
    ],
)
def test_normalise_keeps_text_of_one_script(text: str) -> None:
    assert normalise(text).folded == text


@pytest.mark.parametrize(
    "text",
    [
        "👩‍❤️‍👨 👨‍👩‍👧‍👦 👍🏽",  # joined
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏳️‍🌈 🇩🇪",  # flags of three kinds
        "❤️ 1️⃣ ☺️",  # shown as pictures
        "می‌خواهم",  # a non-joiner that spells the word
        "ශ්‍රී",  # a joiner that does
        "葛󠄀",  # one of two shapes of a character
        "line\nline",
    ],
)
def test_normalise_keeps_needed_invisible_characters(text: str) -> None:
    assert normalise(text).text == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("раypal и зapaбoтoк", ("раypal", "зapaбoтoк")),  # as written
        ("Crуptо", ("Crуptо",)),
        ("Cryptо", ()),  # one letter: a slip of the keyboard
        ("Cryptо and саsino", ("Cryptо", "саsino")),
        ("VPNом VPNа", ()),
        ("нa", ()),  # too short to report; folded all the same
    ],
)
def test_normalise_reports_mixed_words_as_written(text: str, words: tuple[str, ...]) -> None:
    assert normalise(text).mixed_words == words


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"f{ZWSP}r{ZWSP}e{ZWSP}e", 3),
        (f"a{ZWJ}b{ZWNJ}c", 2),  # joiners where nothing joins
        (f"sl{SHY}ot", 1),
        (f"{RLO}evil", 1),
        ("a\U000e0061\U000e0062b", 2),  # tags without a flag
        ("a\u3164b", 1),  # an invisible filler
        ("a\ufe0fb", 1),
        (f"{BOM}text", 0),  # a file's first character, copied along
        (f"שלום{LRM} abc", 0),  # direction marks in bidirectional text
        (f"สวัสดี{ZWSP}ครับ", 0),  # a word separator there
        ("half a pair \ud83d", 0),
        ("❤️\ufe0f️", 0),  # a selector too many after a picture
    ],
)
def test_normalise_counts_hidden_characters(text: str, hidden: int) -> None:
    normal = normalise(text)
    assert normal.hidden == hidden
    assert normalise(normal.text).hidden == 0


def test_normalise_keeps_case_and_lines() -> None:
    assert normalise(" Hello   World \r\n\n Second ").text == "Hello World\nSecond"


@settings(max_examples=400, deadline=None)
@given(TRICKY)
@example("\u0344\u0344a\u0344\u0344")
@example("e\u200b\u0301 \u1100\u200b\u1161 \u115f\u0301")
@example("ℹ️™️㊗️Ⓜ️⁉️")
def test_normalise_is_idempotent(text: str) -> None:
    normal = normalise(text)
    again = normalise(normal.text)
    assert (again.text, again.folded, again.mixed_words) == (normal.text, normal.folded, normal.mixed_words)
    assert again.hidden == 0
    assert 0 <= normal.hidden <= len(text)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None), max_size=200))
def test_normalise_never_raises_and_bounds_length(text: str) -> None:
    normal = normalise(text)
    normal.text.encode()
    assert len(normal.text) <= 18 * len(text)
    assert len(normal.folded) <= 3 * 18 * len(text)


@pytest.mark.parametrize(
    "text",
    [
        ZWSP * 4096,
        f"a{ZWSP}" * 2048,
        "👩" + ZWJ * 4095,
        "a" + "\u0301\u0327" * 2047,  # a pile of marks that NFKC would sort
        "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢" * 60,
        "ﷺ" * 4096,  # eighteen characters each
        "aа" * 2048,  # one word of two scripts
        "aа " * 1365,
        "a " * 2048,  # spelled
        "a  b.c  d." * 409,
        "а" * 4096,
        "\ud800" * 4096,
        RLO * 2048 + "ا" * 2048,
        "🏴" + "\U000e0067" * 4095,
    ],
)
@pytest.mark.timeout(30)
def test_normalise_of_hostile_text_takes_linear_time(text: str) -> None:
    """Eight times Telegram's limit: quadratic time would take minutes."""
    normalise(8 * text)
