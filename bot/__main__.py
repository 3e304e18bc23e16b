"""`python -m bot`: the way in."""

import argparse
import asyncio
import io
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from core.errors import ConfigurationError, StartupError
from core.log import configure_logging
from core.settings import Settings, load_settings
from core.variables import read_variables

log = structlog.get_logger()

ENV_FILE = Path(".env")
_DESCRIPTION = """\
Understudy: a chat bot that goes on with another LLM provider when one falls silent.

  telegram   the bot itself
  console    a chat in this terminal, over the same services
  check      ask the providers, Redis, the database and Telegram, and print what does not answer

Without any of them it is console until TELEGRAM_BOT_TOKEN is set, then telegram.
Settings come from the environment and from .env; .env.example lists them all."""
INTERRUPTED = 130
"""The exit code of a process that Ctrl-C ended, as shells count."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Start what is asked for; the exit code.

    Args:
        arguments: those of the command line when None.
    """
    asked = _parser().parse_args(arguments).surface
    try:
        settings = load_settings(ENV_FILE)
        surface = asked or ("console" if settings.telegram_bot_token is None else "telegram")
        if surface == "telegram":
            return asyncio.run(_telegram(settings))
        _log_quietly(settings)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal that lacks a character shows another; an answer does not end there.
            sys.stdout.reconfigure(errors="replace")
        return asyncio.run(_console(settings) if surface == "console" else _check(settings))
    except ConfigurationError as error:
        return _refuse(error.mistakes)
    except StartupError as error:
        return _refuse([str(error)])
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


# What is imported below is imported when it is needed: a mistake in the settings is told at once, the console does
# without aiogram, and the daemon without the console.


async def _telegram(settings: Settings) -> int:
    configure_logging(settings.log_level, settings.log_format, secrets=settings.secrets)
    settings.for_daemon()
    for warning in settings.warnings:
        log.warning("settings.warning", detail=warning)
    from bot.app import open_house  # noqa: PLC0415 - see above
    from bot.telegram.daemon import run  # noqa: PLC0415 - the same

    async with open_house(settings) as house:
        return await run(house)


async def _console(settings: Settings) -> int:
    from bot.console.session import run  # noqa: PLC0415 - see above

    return await run(settings)


async def _check(settings: Settings) -> int:
    from bot.check import run  # noqa: PLC0415 - see above

    return await run(settings)


def _log_quietly(settings: Settings) -> None:
    """Log what a person at a terminal needs to see beside what they came for, unless they asked for more."""
    asked_for = "LOG_LEVEL" in read_variables(ENV_FILE).values
    level = settings.log_level if asked_for else "warning"
    configure_logging(level, settings.log_format, secrets=settings.secrets)
    # A provider that failed is told of in the conversation, and in the table of the check.
    logging.getLogger("services.llm").setLevel(logging.NOTSET if asked_for else logging.ERROR)


def _refuse(mistakes: Iterable[str]) -> int:
    for mistake in mistakes:
        sys.stderr.write(" ".join(mistake.split()) + "\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bot",
        usage="python -m bot [-h] [telegram | console | check]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("surface", nargs="?", choices=("telegram", "console", "check"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
