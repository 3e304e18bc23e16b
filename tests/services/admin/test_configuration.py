"""Providers that operators set at run time, on each kind of database."""

import asyncio
from collections.abc import Mapping

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from core.background import cancel_and_wait
from core.config.settings import read_providers
from core.db.database import Database
from core.db.operator_tables import ConfigValueRow
from core.errors import ConfigurationError
from services.admin.config_store import ConfigConflict, SecretBox, SecretsKeyMissing
from services.admin.configuration import Configuration, ProviderConfiguration, ValueSource
from tests.support.clock import ManualClock, until

pytestmark = pytest.mark.integration

OLD, NEW = SecretStr("the-older-of-two-keys-with-32-characters"), SecretStr("the-newer-of-two-keys-with-32-characters")
ENVIRONMENT = {
    "AVAILABLE_PROVIDERS": '{"ollama": ["gpt-oss"], "groq": ["a"]}',
    "GROQ_API_KEY": "of-the-environment",
}
REORDERED = '{"groq": ["b", "a"], "ollama": ["gpt-oss"]}'


async def opened(
    database: Database,
    variables: Mapping[str, str] = ENVIRONMENT,
    *,
    keys: tuple[SecretStr, ...] = (NEW,),
    clock: ManualClock | None = None,
) -> ProviderConfiguration:
    """Start the configuration of one replica."""
    box = SecretBox(keys) if keys else None
    configuration = ProviderConfiguration(variables, read_providers(variables), database, clock or ManualClock(), box)
    await configuration.start()
    return configuration


def key_of(configuration: ProviderConfiguration, provider: str) -> str | None:
    """Return the key in effect of a provider."""
    key = next(each.api_key for each in configuration.current.providers if each.id == provider)
    return None if key is None else key.get_secret_value()


async def test_environment_applies_while_nothing_is_stored(database: Database) -> None:
    configuration = await opened(database)
    assert [each.id for each in configuration.current.providers] == ["ollama", "groq"]
    assert configuration.current.revision == 0
    assert configuration.source("GROQ_API_KEY") is ValueSource.ENVIRONMENT
    assert configuration.source("GROQ_RETRIES") is ValueSource.DEFAULT


async def test_saved_values_override_the_environment_until_they_are_reset(database: Database) -> None:
    configuration = await opened(database)
    seen: list[Configuration] = []
    configuration.on_change(seen.append)
    first = await configuration.save(
        {"AVAILABLE_PROVIDERS": REORDERED, "GROQ_API_KEY": "of-the-console"}, 7, note="reorder", revision=0
    )
    assert [(each.id, each.models) for each in seen[-1].providers] == [("groq", ("b", "a")), ("ollama", ("gpt-oss",))]
    assert key_of(configuration, "groq") == "of-the-console"
    assert configuration.source("GROQ_API_KEY") is ValueSource.CONSOLE
    assert configuration.current.stored["GROQ_API_KEY"].actor_id == 7
    await configuration.save({"AVAILABLE_PROVIDERS": None, "GROQ_API_KEY": None}, 7, note="reset", revision=first)
    assert [each.id for each in configuration.current.providers] == ["ollama", "groq"]
    assert key_of(configuration, "groq") == "of-the-environment"
    assert configuration.source("GROQ_API_KEY") is ValueSource.ENVIRONMENT


async def test_replica_follows_within_a_second(database: Database, replica: Database) -> None:
    clock = ManualClock()
    here, there = await opened(database), await opened(replica, clock=clock)
    following = asyncio.create_task(there.run())
    await here.save({"AVAILABLE_PROVIDERS": REORDERED}, 7, note="reorder", revision=0)
    await clock.advance(1.0)
    await until(lambda: there.current.revision == 1)
    await cancel_and_wait(following)
    assert [each.id for each in there.current.providers] == ["groq", "ollama"]


async def test_second_of_two_operators_conflicts(database: Database, replica: Database) -> None:
    here, there = await opened(database), await opened(replica)
    await here.save({"GROQ_RETRIES": "0"}, 7, note="retries", revision=0)
    with pytest.raises(ConfigConflict):
        await there.save({"GROQ_TIMEOUT": "30"}, 8, note="timeout", revision=0)
    await there.refresh()
    assert await there.save({"GROQ_TIMEOUT": "30"}, 8, note="timeout", revision=1) == 2
    assert there.current.providers[1].retries == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"GROQ_TIMEOUT": "soon"}, "GROQ_TIMEOUT"),
        ({"AVAILABLE_PROVIDERS": "[]"}, "AVAILABLE_PROVIDERS"),
        ({"AVAILABLE_PROVIDERS": '{"a b": ["m"]}'}, "AVAILABLE_PROVIDERS"),
        ({"TELEGRAM_BOT_TOKEN": "1:a"}, "TELEGRAM_BOT_TOKEN"),
        ({"OPENAI_API_KEY": "k"}, "OPENAI_API_KEY"),
    ],
)
async def test_invalid_change_names_its_variable_and_stores_nothing(
    database: Database, changes: dict[str, str | None], named: str
) -> None:
    configuration = await opened(database)
    with pytest.raises(ConfigurationError, match=named):
        await configuration.save(changes, 7, note="wrong", revision=0)
    await configuration.refresh()
    assert configuration.current.revision == 0


async def test_keys_are_stored_encrypted_and_never_exported(database: Database) -> None:
    configuration = await opened(database)
    await configuration.save({"GROQ_API_KEY": "gsk_of-the-console", "GROQ_RETRIES": "2"}, 7, note="key", revision=0)
    async with database.reading() as session:
        rows = list(await session.scalars(select(ConfigValueRow)))
    assert all("of-the-console" not in f"{row.value} {row.sealed!r}" for row in rows)
    assert "of-the-console" not in repr(configuration.current)
    assert configuration.export_lines() == [
        "# GROQ_API_KEY is set in the console; keys are not exported",
        "GROQ_RETRIES='2'",
    ]


async def test_key_is_not_stored_without_secrets_key(database: Database) -> None:
    configuration = await opened(database, keys=())
    with pytest.raises(SecretsKeyMissing):
        await configuration.save({"GROQ_API_KEY": "k"}, 7, note="key", revision=0)
    assert await configuration.save({"GROQ_RETRIES": "2"}, 7, note="retries", revision=0) == 1


async def test_start_encrypts_anew_with_the_newest_key(database: Database) -> None:
    before = await opened(database, keys=(OLD,))
    await before.save({"GROQ_API_KEY": "of-the-console"}, 7, note="key", revision=0)
    await opened(database, keys=(NEW, OLD))
    assert key_of(await opened(database, keys=(NEW,)), "groq") == "of-the-console"


async def test_key_that_cannot_be_read_leaves_its_provider_out(database: Database) -> None:
    before = await opened(database, keys=(OLD,))
    await before.save({"GROQ_API_KEY": "of-the-console"}, 7, note="key", revision=0)
    after = await opened(database, keys=(NEW,))
    assert after.current.providers[1].missing == "GROQ_API_KEY is not set"
    assert after.current.providers[0].missing is None


async def test_value_of_another_row_is_refused(database: Database) -> None:
    configuration = await opened(database)
    await configuration.save({"GROQ_API_KEY": "of-groq"}, 7, note="key", revision=0)
    async with database.session() as session:
        await session.execute(update(ConfigValueRow).values(name="OLLAMA_API_KEY"))
    after = await opened(database)
    assert key_of(after, "ollama") is None


async def test_undo_restores_what_one_revision_changed(database: Database) -> None:
    configuration = await opened(database)
    await configuration.save({"GROQ_API_KEY": "first"}, 7, note="key", revision=0)
    await configuration.save({"GROQ_API_KEY": "second", "GROQ_RETRIES": "0"}, 7, note="key", revision=1)
    await configuration.save({"OLLAMA_RETRIES": "3"}, 7, note="other", revision=2)
    await configuration.undo(2, 8, note="undo")
    assert key_of(configuration, "groq") == "first"
    assert configuration.source("GROQ_RETRIES") is ValueSource.DEFAULT
    assert configuration.current.providers[0].retries == 3
    with pytest.raises(ConfigConflict):
        await configuration.undo(2, 8, note="undo")


async def test_undo_overwrites_no_change_that_is_stored_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = await opened(database)
    await configuration.save({"GROQ_API_KEY": "first"}, 7, note="key", revision=0)
    list_undoable = configuration.store.list_undoable

    async def list_before_a_change() -> frozenset[int]:
        found = await list_undoable()
        await configuration.save({"GROQ_API_KEY": "of-another-operator"}, 9, note="key", revision=1)
        return found

    monkeypatch.setattr(configuration.store, "list_undoable", list_before_a_change)
    with pytest.raises(ConfigConflict):
        await configuration.undo(1, 8, note="undo")
    assert key_of(configuration, "groq") == "of-another-operator"


async def test_values_that_no_longer_fit_the_environment_are_left_aside(database: Database) -> None:
    configuration = await opened(database)
    await configuration.save({"AVAILABLE_PROVIDERS": REORDERED}, 7, note="reorder", revision=0)
    variables = {**ENVIRONMENT, "GROQ_KIND": "azure_openai", "GROQ_DEPLOYMENTS": '{"a": "d"}'}
    after = await opened(database, variables)
    assert [each.id for each in after.current.providers] == ["ollama", "groq"]


async def test_replaced_values_leave_a_month_after_they_were_replaced(database: Database) -> None:
    clock = ManualClock()
    configuration = await opened(database, clock=clock)
    for revision, key in enumerate(("first", "second", "third")):
        await configuration.save({"GROQ_API_KEY": key}, 7, note="key", revision=revision)
        await clock.advance(31 * 86400)
    await configuration.save({"GROQ_API_KEY": "fourth"}, 7, note="key", revision=3)
    async with database.reading() as session:
        assert [row.revision for row in await session.scalars(select(ConfigValueRow))] == [3, 4]
    assert key_of(configuration, "groq") == "fourth"


async def test_value_that_was_in_effect_for_long_comes_back_by_undo(database: Database) -> None:
    clock = ManualClock()
    configuration = await opened(database, clock=clock)
    await configuration.save({"GROQ_API_KEY": "first"}, 7, note="key", revision=0)
    await clock.advance(90 * 86400)
    await configuration.save({"GROQ_API_KEY": "second"}, 7, note="key", revision=1)
    assert await configuration.store.list_undoable() == {2}
    await configuration.undo(2, 7, note="undo")
    assert key_of(configuration, "groq") == "first"


async def test_change_of_more_than_a_month_ago_is_not_undone(database: Database) -> None:
    clock = ManualClock()
    configuration = await opened(database, clock=clock)
    await configuration.save({"GROQ_API_KEY": "first"}, 7, note="key", revision=0)
    await clock.advance(31 * 86400)
    assert await configuration.store.list_undoable() == frozenset()
    with pytest.raises(ConfigConflict):
        await configuration.undo(1, 7, note="undo")
    assert key_of(configuration, "groq") == "first"
