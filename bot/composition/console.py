"""Builds the console: the services, with the demo provider where none of the configured ones is available."""

import os
import sys
from contextlib import ExitStack, aclosing, redirect_stderr
from dataclasses import replace
from functools import partial

from bot.composition.services import Services, open_services
from bot.console.chat import KEY, USER_ID, ConsoleChat, current_speaker
from bot.console.commands import Commands
from bot.console.input import PipedInput, open_input
from bot.console.model_commands import ModelCommands
from bot.console.operator_commands import OperatorCommands
from bot.console.session import Session, is_any_ready, print_banner, run_until_interrupted
from bot.console.terminal import Terminal
from core.clock import SystemClock
from core.config.providers import ProviderKind, ProviderSettings
from core.config.settings import Settings
from core.messages import user_ref
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import Catalog
from services.llm.providers.probe import ProbeResult, probe_providers
from services.llm.routing.fallback import LLMProviderFallback
from services.privacy.erasure import Eraser

PROBE_TIMEOUT_S = 1.5
HISTORY = "console.history"
PICTURES = "console.pictures"
DEMO = ProviderSettings(id="demo", kind=ProviderKind.DEMO, models=("demo",), remote=False)


async def run_console(settings: Settings) -> int:
    """Runs the console until `/quit`, the end of input or a signal.

    Piped, it prints the answers on standard output and everything else on standard error.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: DATA_DIR cannot be used.
        StartupError: the database cannot be used.
    """
    lines = open_input(sys.stdin, sys.stdout, settings.data_dir / HISTORY)
    is_piped = isinstance(lines, PipedInput)
    session = Session(Terminal(sys.stdout, sys.stderr if is_piped else None), lines)
    with ExitStack() as stack:
        if not is_piped:
            stack.enter_context(redirect_stderr(session.terminal.error_stream()))
        return await run_until_interrupted(_chat(session, settings), session)


async def _chat(session: Session, settings: Settings) -> None:
    probes = await _probe(settings)
    if not is_any_ready(probes):
        settings = _with_demo(settings)
    speaker, terminal = current_speaker(os.environ), session.terminal
    async with open_services(settings) as services, aclosing(_build_eraser(services)) as eraser:
        infra, llm, chat = services.infra, services.llm, services.chat
        if chosen := infra.languages.chosen.get(user_ref(KEY.surface, USER_ID)):
            speaker = replace(speaker, language=chosen)
        print_banner(terminal, infra.texts, speaker.language, settings, probes)
        conversation = ConsoleChat(
            chat.service,
            speaker,
            infra.texts,
            infra.clock,
            terminal,
            pictures=settings.data_dir / PICTURES,
            asked=partial(_asked, llm.fallback),
        )
        commands = Commands(
            chat=conversation,
            service=chat.service,
            turns=chat.turns,
            threads=chat.threads,
            preferences=chat.preferences,
            consent=chat.consent,
            usage=services.operators.usage,
            budgets=services.operators.budgets,
            providers=services.operators.providers,
            fallback=llm.fallback,
            models=ModelCommands(
                conversation,
                terminal,
                infra.texts,
                infra.clock,
                preferences=chat.preferences,
                fallback=llm.fallback,
                catalog=llm.catalog,
            ),
            texts=infra.texts,
            terminal=terminal,
            eraser=eraser,
            languages=infra.languages,
            is_drawing=llm.capabilities.image_generator is not None,
            own_files=(settings.data_dir / HISTORY, settings.data_dir / PICTURES),
            operator=_build_operator_commands(services, conversation, terminal).commands,
        )
        await session.run(conversation, commands, infra.texts)


def _build_operator_commands(services: Services, chat: ConsoleChat, terminal: Terminal) -> OperatorCommands:
    operators = services.operators
    return OperatorCommands(
        chat,
        terminal,
        services.infra.texts,
        audit=operators.audit_reports,
        statistics=operators.statistics,
        bans=operators.ban_commands,
        broadcasts=operators.broadcasts,
        broadcast_reports=operators.broadcast_reports,
        contests=services.chat.contests,
        votes=services.chat.votes,
    )


def _asked(fallback: LLMProviderFallback) -> list[str]:
    return [each.provider for each in fallback.get_provider_status().providers if each.in_flight]


def _build_eraser(services: Services) -> Eraser:
    infra = services.infra
    return Eraser(
        infra.database,
        infra.redis,
        infra.settings.redis_prefix,
        services.ledger,
        infra.pseudonyms,
        infra.clock,
        on_erased=infra.languages.forget,
    )


def _with_demo(settings: Settings) -> Settings:
    """Adds the built-in demo as the last provider."""
    if any(provider.kind is ProviderKind.DEMO for provider in settings.providers):
        return settings
    return settings.model_copy(update={"providers": (*settings.providers, DEMO)})


async def _probe(settings: Settings) -> tuple[ProbeResult, ...]:
    """Probes the providers before the services are built, since the services depend on the result."""
    builder = ModelBuilder()
    try:
        usable = [provider for provider in settings.providers if provider.missing is None]
        return await probe_providers(Catalog(builder.http_client), usable, PROBE_TIMEOUT_S, SystemClock())
    finally:
        await builder.aclose()
