"""Builds the console."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from bot.composition.services import open_services, with_demo_provider
from bot.console.banner import print_banner, ready
from bot.console.chat import ConsoleChat, speaker_of
from bot.console.commands import Commands, ConsoleServices
from bot.console.session import OpenConsole, run
from bot.console.terminal import Terminal
from core.clock import SystemClock
from core.config.settings import Settings
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import Catalog
from services.llm.providers.probe import ProbeResult, probe_providers

PROBE_TIMEOUT_S = 1.5


async def run_console(settings: Settings) -> int:
    """Runs the console until its input ends; returns the exit code.

    Raises:
        ConfigurationError: DATA_DIR cannot be used.
        StartupError: the database cannot be used.
    """
    return await run(partial(_open_console, settings))


@asynccontextmanager
async def _open_console(settings: Settings, terminal: Terminal) -> AsyncGenerator[OpenConsole]:
    probes = await _probe(settings)
    if not ready(probes):
        settings = with_demo_provider(settings)
    speaker = speaker_of(os.environ)
    async with open_services(settings) as services:
        print_banner(terminal, services.texts, speaker.language, settings, probes)
        chat = ConsoleChat(services.chat, speaker, services.texts, services.clock, terminal)
        commands = Commands(
            ConsoleServices(
                texts=services.texts,
                clock=services.clock,
                threads=services.stores.threads,
                thread_list=services.shelf,
                preferences=services.stores.preferences,
                consent=services.consent,
                provider_admin=services.desk,
                usage=services.usage,
                fallback=services.fallback,
                catalog=services.catalog,
            ),
            chat,
            terminal,
        )
        yield OpenConsole(chat, commands, services.texts)


async def _probe(settings: Settings) -> tuple[ProbeResult, ...]:
    """Probes the configured providers before the services are built: without a ready one the demo is added."""
    builder = ModelBuilder()
    try:
        usable = [provider for provider in settings.providers if provider.missing is None]
        return await probe_providers(Catalog(builder.http_client), usable, PROBE_TIMEOUT_S, SystemClock())
    finally:
        await builder.aclose()
