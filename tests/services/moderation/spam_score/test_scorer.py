"""The local score: the shipped model, learning per group, and database outages."""

from collections.abc import AsyncIterator

import pytest

from core.db.database import Database
from services.moderation.domain.policy import HIGH, VERY_HIGH
from services.moderation.spam_score import scorer as module
from services.moderation.spam_score import vectorizer as vectorizer_module
from services.moderation.spam_score.base_model import EMPTY_SCORE, create_example, fit
from services.moderation.spam_score.scorer import BASE, ScorerTiming, ScoreStore, SpamScorer
from services.moderation.spam_score.vectorizer import COLUMNS, FEATURE_WEIGHT, vectorize
from services.moderation.spam_score.weights import Weights
from tests.support.clock import ManualClock
from tests.support.group_messages import score_input

GROUP, OTHER = -1001, -1002
REFRESH_S = ScorerTiming().refresh_s

VACANCY = "Требуются бариста в кофейню на Садовой, без опыта, 2500 рублей за смену, выплаты каждый день, пишите в лс"
LIKE_IT = "В кофейню на Садовой требуется второй бариста, без опыта, 2500 рублей за смену, пишите в лс"
SCAM = "Требуются люди на удалённую работу, 2 часа в день, от 200$ ежедневно, опыт не нужен, пишите + в лс"
CASINO = "Онлайн казино дарит 150 фриспинов без депозита, промокод в канале, успей забрать"
TALK = "а кто-нибудь знает, во сколько завтра собрание?"

SPAM = [
    SCAM,
    CASINO,
    "Earn 100$ per day from home, no experience, only your phone. Write me in private",
    "Free airdrop! Connect your wallet and claim 2000 tokens now",
    "Гарантированный доход 3% в день, вывод без задержек, подробности в личке",
    "Tpeбуютcя люди нa удaлeнку, oт 100$ в дeнь, пишитe в лc",  # in two scripts
    "Т\u200bр\u200bе\u200bб\u200bу\u200bю\u200bтся люди на удаленку, от 100$ в день, пишите в лс",
    "𝐄𝐚𝐫𝐧 $𝟑𝟎𝟎 𝐝𝐚𝐢𝐥𝐲 𝐟𝐫𝐨𝐦 𝐡𝐨𝐦𝐞, 𝐧𝐨 𝐞𝐱𝐩𝐞𝐫𝐢𝐞𝐧𝐜𝐞, 𝐝𝐦 𝐦𝐞",
]
HAM = [
    "hi",
    "привет всем",
    "ok",
    "👍",
    "спасибо большое!",
    TALK,
    "what time does the shop open on Sunday?",
    "I lost 300 dollars on that coin, never again",
    "Осторожно, пишут про заработок 200$ в день без опыта, это мошенники",
    "someone sent me an offer to earn 500 a day, obviously a scam, reported",
    "def main() -> None: print('hello')",
    "The docs say otherwise: https://docs.python.org/3/library/asyncio.html",
    "сколько стоит билет на поезд до Казани?",
    "какого хрена опять не работает лифт",
    "Happy birthday!!! 🎉🎉🎉🎂",
    "Der Zug kommt um 8 Uhr, wir treffen uns am Bahnhof",  # a language outside the training data
    "Зустрінемося завтра о десятій біля школи",
    "https://www.youtube.com/watch?v=abc смешное видео",
    "BTC упал на 5%, кто-нибудь понимает почему?",
    "В кофейню ищем бариста, 45 тысяч, 2/2, приходите на Садовую",
]


RELEASED = {
    7412: 0.378, 30075: 0.378, 52064: 0.378, 61319: 0.378, 79507: 0.378, 85773: 0.378, 120579: 0.378,
    131758: 0.2887, 135040: 0.2887, 163238: 0.2887, 169034: 0.2887, 177104: 0.2887, 179970: 0.2887, 182507: 0.2887,
    186757: 0.2887, 193396: 0.2887, 211273: 0.2887, 230118: 0.2887, 237292: 0.2887,
}  # fmt: skip


@pytest.fixture
def score(database: Database, clock: ManualClock) -> SpamScorer:
    return SpamScorer(database, clock)


async def score_of(score: SpamScorer, text: str, group: int = GROUP, **changes: object) -> int:
    """The score of a text."""
    return await score.score(group, *score_input(text, **changes))


class TestBase:
    """The shipped model, on messages outside its training data."""

    @pytest.fixture
    async def sqlite(self, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
        database = Database(f"sqlite:///{tmp_path_factory.mktemp('score')}/understudy.db")
        await database.start()
        yield database
        await database.close()

    @pytest.fixture
    def shipped(self, sqlite: Database, clock: ManualClock) -> SpamScorer:
        return SpamScorer(sqlite, clock)

    async def test_score_of_spam_is_high(self, shipped: SpamScorer) -> None:
        assert {text: score for text in SPAM if (score := await score_of(shipped, text)) < HIGH} == {}

    async def test_score_of_talk_is_low(self, shipped: SpamScorer) -> None:
        assert {text: score for text in HAM if (score := await score_of(shipped, text)) >= HIGH} == {}

    async def test_score_of_empty_message_is_constant(self, shipped: SpamScorer) -> None:
        assert await score_of(shipped, "") == EMPTY_SCORE
        assert await score_of(shipped, "\u200b \u2800") == EMPTY_SCORE

    async def test_score_of_bare_forward_is_low(self, shipped: SpamScorer) -> None:
        assert await score_of(shipped, "", is_forward=True) < HIGH

    async def test_score_uses_both_ends_of_long_text(self, shipped: SpamScorer) -> None:
        story = "We went to the lake and it rained all day, the children did not mind at all. " * 80
        assert await score_of(shipped, story) < 50
        assert await score_of(shipped, story + SCAM * 4) > await score_of(shipped, story)
        assert await score_of(shipped, SCAM * 4 + story) > await score_of(shipped, story)

    async def test_score_is_equal_on_two_replicas(
        self, shipped: SpamScorer, sqlite: Database, clock: ManualClock
    ) -> None:
        twin = SpamScorer(sqlite, clock)
        assert [await score_of(shipped, text) for text in (SCAM, TALK)] == [
            await score_of(twin, text) for text in (SCAM, TALK)
        ]


async def test_warm_loads_base(database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [create_example(f"{word} {number}", is_spam=word == "кот") for word in ("кот", "пёс") for number in range(9)]
    await ScoreStore(database, clock).replace(BASE, fit(mine), spam_count=9, ham_count=9)
    score = SpamScorer(database, clock)
    await score.warm()
    monkeypatch.setattr(score, "_build_base", None)
    assert await score_of(score, "кот") > HIGH
    assert await score_of(score, "пёс") < 50


class TestLearning:
    """On SQLite and PostgreSQL."""

    async def test_learn_ham_lowers_score_of_similar_messages(self, score: SpamScorer) -> None:
        """The scores of other messages stay."""
        before = {text: await score_of(score, text) for text in (VACANCY, LIKE_IT, SCAM, CASINO, TALK)}
        assert before[VACANCY] >= HIGH
        await score.learn(GROUP, *score_input(VACANCY), is_spam=False)
        after = {text: await score_of(score, text) for text in before}
        assert after[VACANCY] <= 15
        assert after[LIKE_IT] < min(50, before[LIKE_IT] - 20)
        assert after[SCAM] >= HIGH
        assert abs(after[CASINO] - before[CASINO]) <= 8
        assert abs(after[TALK] - before[TALK]) <= 5

    async def test_learn_spam_raises_score_of_similar_messages(self, score: SpamScorer) -> None:
        advert = "Щенки хаски, последние два мальчика, доставка по всей стране"
        again = "Продаются щенки хаски, остались два мальчика, доставка по стране"
        before = {text: await score_of(score, text) for text in (again, TALK, "привет")}
        for _ in range(2):
            await score.learn(GROUP, *score_input(advert), is_spam=True)
        assert await score_of(score, advert) >= 85
        assert await score_of(score, again) > before[again] + 15
        assert abs(await score_of(score, TALK) - before[TALK]) <= 6
        assert await score_of(score, "привет") < HIGH

    async def test_learn_affects_one_group(self, score: SpamScorer) -> None:
        elsewhere = await score_of(score, VACANCY, OTHER)
        await score.learn(GROUP, *score_input(VACANCY), is_spam=False)
        assert await score_of(score, VACANCY, OTHER) == elsewhere

    async def test_learn_reverses_earlier_decision(self, score: SpamScorer) -> None:
        await score.learn(GROUP, *score_input(VACANCY), is_spam=False)
        await score.learn(GROUP, *score_input(VACANCY), is_spam=True)
        assert await score_of(score, VACANCY) >= 85

    async def test_forget_restores_base_score(self, score: SpamScorer, replica: Database, clock: ManualClock) -> None:
        before = await score_of(score, VACANCY)
        await score.learn(GROUP, *score_input(VACANCY), is_spam=False)
        twin = SpamScorer(replica, clock)
        assert await score_of(twin, VACANCY) <= 15
        await score.forget(GROUP)
        assert await score_of(score, VACANCY) == before
        clock.shift(REFRESH_S)
        assert await score_of(twin, VACANCY) == before

    async def test_learn_reaches_other_replica_after_refresh(
        self, score: SpamScorer, replica: Database, clock: ManualClock
    ) -> None:
        twin = SpamScorer(replica, clock)
        before = await score_of(twin, VACANCY)
        await score.learn(GROUP, *score_input(VACANCY), is_spam=False)
        assert await score_of(score, VACANCY) <= 15
        assert await score_of(twin, VACANCY) == before
        clock.shift(REFRESH_S)
        assert await score_of(twin, VACANCY) == await score_of(score, VACANCY)

    async def test_learn_adds_up_over_replicas(self, score: SpamScorer, replica: Database, clock: ManualClock) -> None:
        twin = SpamScorer(replica, clock)
        await score_of(twin, TALK)
        await score.learn(GROUP, *score_input(VACANCY), is_spam=False)
        await twin.learn(GROUP, *score_input("приходите на мой концерт"), is_spam=True)
        for each in (score, twin):
            clock.shift(REFRESH_S)
            assert await score_of(each, VACANCY) <= 25
            assert await score_of(each, "приходите на мой концерт") >= 80

    async def test_learn_stores_no_text(self, score: SpamScorer, database: Database, clock: ManualClock) -> None:
        await score.learn(GROUP, *score_input("секретное слово абракадабра"), is_spam=True)
        (stored,) = (await ScoreStore(database, clock).changes({GROUP: None})).values()
        assert stored is not None
        assert (stored.spam_count, stored.ham_count) == (1, 0)
        assert stored.weights is not None
        assert "абракадабра".encode() not in stored.weights.as_bytes()

    async def test_base_follows_stored_one_after_refresh(
        self, score: SpamScorer, database: Database, clock: ManualClock
    ) -> None:
        shipped = await score_of(score, SCAM)
        odd = [
            create_example(f"{word} {number}", is_spam=word == "кот") for word in ("кот", "пёс") for number in range(30)
        ]
        store = ScoreStore(database, clock)
        await store.replace(BASE, fit(odd), spam_count=30, ham_count=30)
        assert await score_of(score, SCAM) == shipped
        clock.shift(REFRESH_S)
        assert await score_of(score, "кот") > 80
        assert await score_of(score, "пёс") < 20
        await store.remove(BASE)
        clock.shift(REFRESH_S)
        assert await score_of(score, SCAM) == shipped

    async def test_weights_of_other_version_are_ignored(
        self, score: SpamScorer, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = await score_of(score, VACANCY)
        await score.learn(GROUP, *score_input(VACANCY), is_spam=False)
        shipped = module.shipped_weights()
        monkeypatch.setattr(module, "shipped_weights", lambda: shipped)
        monkeypatch.setattr("services.moderation.spam_score.weights.SPACE", 99)
        newer = SpamScorer(database, clock)
        assert await score_of(newer, VACANCY) == before
        await newer.learn(GROUP, *score_input(VACANCY), is_spam=False)
        assert await score_of(newer, VACANCY) <= 15


class TestCaching:
    """Database outages and caching."""

    async def test_score_uses_cache_while_database_fails(self, clock: ManualClock, database: Database) -> None:
        score = SpamScorer(database, clock)
        await score.learn(GROUP, *score_input(VACANCY), is_spam=False)

        async def broken(*_: object) -> None:
            raise module.StorageError("gone")

        score._store.changes = broken
        clock.shift(REFRESH_S)
        assert await score_of(score, VACANCY) <= 15
        assert await score_of(score, SCAM, OTHER) >= HIGH

    async def test_cached_groups_are_bounded(self, database: Database, clock: ManualClock) -> None:
        score = SpamScorer(database, clock, cached_groups=3)
        await score.learn(GROUP, *score_input(VACANCY), is_spam=False)
        for group in range(1, 9):
            await score_of(score, "hi", group)
        assert len(score._groups) == 3
        assert await score_of(score, VACANCY) <= 15

    async def test_score_of_fresh_group_runs_no_query(self, score: SpamScorer, monkeypatch: pytest.MonkeyPatch) -> None:
        await score_of(score, SCAM)
        calls: list[object] = []
        changes = score._store.changes

        async def counted(known: dict[int, str | None]) -> object:
            calls.append(known)
            return await changes(known)

        monkeypatch.setattr(score._store, "changes", counted)
        for _ in range(5):
            await score_of(score, SCAM)
        assert calls == []


def test_thresholds_are_ordered() -> None:
    assert EMPTY_SCORE < 50 < HIGH < VERY_HIGH <= 100
    assert Weights.none().dot(vectorize("x", ())) == 0


def test_vectorize_concatenates_words_ngrams_and_features() -> None:
    whole = vectorize("free money now", {"link", "money"})
    assert list(whole.columns) == sorted(set(whole.columns))
    assert whole.columns[-1] < COLUMNS
    assert whole.square == pytest.approx(2 + 2 * FEATURE_WEIGHT**2)
    assert vectorize("", ()).columns == ()


@pytest.mark.parametrize(
    ("data", "hashed"), [("", 0), ("hello", 0x248BFA47), ("hello, world", 0x149BBB7F), ("Привет", 0x29A2EEC8)]
)
def test_columns_are_hashed_by_murmur3(data: str, hashed: int) -> None:
    assert vectorizer_module._murmur3(data.encode()) == hashed


def test_columns_are_those_of_earlier_versions() -> None:
    """The columns and values that scikit-learn computed for this text, as released versions stored them."""
    found = vectorize("да, go!", ())
    assert dict(zip(found.columns, (round(value, 4) for value in found.values), strict=True)) == RELEASED
