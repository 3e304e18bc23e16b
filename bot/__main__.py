"""Command line: `python -m bot`."""

import argparse
import gc
import io
import logging
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from bot.event_loop import run
from bot.supervisor import CRASHED
from core.config.environment import read_variables
from core.config.permissions import UMASK
from core.config.settings import Settings, load_settings
from core.errors import ConfigurationError, InboxError, ReplicaReplaced, StartupError
from core.observability.log import configure_logging, log_uncaught

log = structlog.get_logger()

ENV_FILE = Path(".env")
_DESCRIPTION = """\
Understudy: a chat bot that fails over to another LLM provider when one stops answering.

  telegram   run the bot
  console    chat in this terminal, with the same services
  serve      serve the providers to other programs by OpenAI's protocol, without Telegram (docs/endpoint.md)
  check      test the providers with a request each, Redis, the database, Telegram and the web port
  train      measure the local spam score, or train it on your own examples (train --help)

Without a command it is console until TELEGRAM_BOT_TOKEN is set, then telegram.
Settings come from the environment and from .env; .env.example lists them all."""
_TRAINING = """\
Train the local spam score on your own examples together with the bundled ones: one JSON object per line,
{"label": "spam" or "ham", "text": "...", "source": "the group it is from"}. Prints precision, recall and false
positives by cross-validation, by source, then replaces the model in use."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells report it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the selected command and returns the exit code.

    Args:
        arguments: the command line's, without the program; None for `sys.argv`.
    """
    options = _parser().parse_args(arguments)
    os.umask(UMASK)
    try:
        settings = load_settings(ENV_FILE)
        surface = options.surface or ("console" if settings.telegram_bot_token is None else "telegram")
        if surface == "telegram":
            return run(_telegram(settings))
        if surface == "serve":
            return run(_serve(settings))
        _log_quietly(settings)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A character that the terminal cannot encode is replaced, and does not end the answer.
            sys.stdout.reconfigure(errors="replace")
        if surface == "train":
            return run(_train(settings, options))
        return run(_console(settings) if surface == "console" else _check(settings))
    except ConfigurationError as error:
        return _print_mistakes(error.mistakes)
    except (InboxError, StartupError) as error:
        return _print_mistakes([str(error)])
    except BrokenPipeError:
        # The reader of our output has closed it; flushing the rest at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


def run_process() -> int:
    """Runs the command line; a bug of ours ends it with `CRASHED`, which the supervisor answers with a restart."""
    try:
        return main()
    except Exception as error:  # noqa: BLE001 - reported by the hook that `log_uncaught` has set, or Python's own
        sys.excepthook(type(error), error, error.__traceback__)
        return CRASHED


@contextmanager
def _importing() -> Generator[None]:
    """Pauses garbage collection while half a million long-lived objects come into being, and exempt them from it.

    Searching them again and again for garbage would be a sixth of the daemon's start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


# The imports below are deferred: a wrong setting is reported at once, the console starts without aiogram, and the
# daemon without the console.


async def _telegram(settings: Settings) -> int:
    configure_logging(settings.log_level, settings.log_format, secrets=settings.secrets)
    log_uncaught()
    settings.require_daemon()
    for warning in settings.warnings:
        log.warning("settings.warning", detail=warning)
    with _importing():
        from bot.telegram.api.deferred_types import import_aiogram

        import_aiogram()
        from bot.composition.services import open_services
        from bot.composition.telegram import run_daemon

    while True:
        async with open_services(settings) as services:
            try:
                return await run_daemon(services)
            except ReplicaReplaced as error:
                # Everything is built anew, under a new name and without the state of the old one.
                log.warning("bot.replaced", detail=str(error))


async def _serve(settings: Settings) -> int:
    configure_logging(settings.log_level, settings.log_format, secrets=settings.secrets)
    log_uncaught()
    for warning in settings.warnings:
        log.warning("settings.warning", detail=warning)
    from bot.composition.serve import run_endpoint

    return await run_endpoint(settings)


async def _console(settings: Settings) -> int:
    with _importing():
        from bot.composition.console import run_console

    return await run_console(settings)


async def _check(settings: Settings) -> int:
    from bot.check import run

    return await run(settings)


async def _train(settings: Settings, options: argparse.Namespace) -> int:
    from bot.train import reset, run

    if options.reset:
        return await reset(settings)
    return await run(settings, options.file, with_starter=not options.without_starter, is_dry=options.dry_run)


def _log_quietly(settings: Settings) -> None:
    """Logs warnings and errors only, unless LOG_LEVEL is set: a terminal is for the conversation."""
    is_level_set = "LOG_LEVEL" in read_variables(ENV_FILE).values
    level = settings.log_level if is_level_set else "warning"
    configure_logging(level, settings.log_format, secrets=settings.secrets)
    log_uncaught()
    # The conversation, and the table of the check, already show a failed provider.
    for name, quiet in (("services.llm", logging.ERROR), ("services.llm.routing.request_failures", logging.CRITICAL)):
        logging.getLogger(name).setLevel(logging.NOTSET if is_level_set else quiet)


def _print_mistakes(mistakes: Iterable[str]) -> int:
    for mistake in mistakes:
        sys.stderr.write(" ".join(mistake.split()) + "\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bot",
        usage="python -m bot [-h] [telegram | console | serve | check | train]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    surfaces = parser.add_subparsers(dest="surface", help=argparse.SUPPRESS)
    for name in ("telegram", "console", "serve", "check"):
        surfaces.add_parser(name, prog=f"python -m bot {name}")
    train = surfaces.add_parser("train", prog="python -m bot train", description=_TRAINING)
    train.add_argument(
        "file",
        metavar="FILE.jsonl",
        nargs="?",
        type=Path,
        help="labelled examples; without a file: only print the measurements",
    )
    train.add_argument("--without-starter", action="store_true", help="train on the file alone")
    train.add_argument("--dry-run", action="store_true", help="print the measurements, change nothing")
    train.add_argument("--reset", action="store_true", help="return to the bundled examples")
    return parser


if __name__ == "__main__":
    sys.exit(run_process())
