"""Common settings: defaults, validation, requirements of the daemon, secrets, DATA_DIR."""

import errno
import os
import stat
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from core.config.providers import ProviderKind, ProviderSettings
from core.config.settings import Settings
from core.config.timezone import machine_zone
from core.config.variables import CommonVariables
from core.errors import ConfigurationError
from tests.support.settings import load, load_mistakes


class TestDefaults:
    """Defaults."""

    def test_load_settings_returns_the_documented_defaults(self) -> None:
        settings = load()
        assert settings.available_providers == {"ollama": ("gpt-oss", "llama3.2"), "openai": ("gpt-5-mini",)}
        assert [each.id for each in settings.providers] == ["ollama", "openai"]
        assert settings.telegram_bot_token is None
        assert settings.telegram_mode == "polling"
        assert settings.data_dir == Path("data")
        assert settings.admin_ids == frozenset()
        assert (settings.provider_preferred_ttl, settings.provider_cooldown, settings.provider_max_hops) == (
            1800,
            300,
            3,
        )
        assert (settings.history_tokens, settings.shutdown_timeout) == (8000, 25)

    def test_settings_ignore_the_environment_when_constructed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that tests do not depend on variables of the machine."""
        monkeypatch.setenv("LOG_LEVEL", "debug")
        monkeypatch.setenv("HISTORY_TOKENS", "nonsense")
        assert Settings(telegram_bot_token=SecretStr("1:a")).log_level == "info"

    def test_provider_settings_have_defaults(self) -> None:
        built = ProviderSettings(id="a", kind=ProviderKind.OPENAI_COMPATIBLE, models=("m", "n"), base_url="http://h/v1")
        assert built.default_model == "m"
        assert (built.timeout_s, built.first_token_timeout_s, built.stall_timeout_s, built.retries) == (60, 12, 20, 1)
        assert hash(built)

    def test_load_settings_warns_of_an_unusable_default_provider(self) -> None:
        settings = load()
        assert settings.providers[0].missing is None
        assert settings.providers[1].missing == "OPENAI_API_KEY is not set"
        assert settings.warnings == ("openai is left out: OPENAI_API_KEY is not set",)

    @pytest.mark.parametrize(
        ("variable", "value", "warning"),
        [
            ("HISTORY_TOKENS", "10", "HISTORY_TOKENS=10 holds about 7 words, so a conversation is forgotten at once"),
            ("SHUTDOWN_TIMEOUT", "25000", "SHUTDOWN_TIMEOUT=25000 is 6h 57m: it counts seconds, not milliseconds"),
            ("OLLAMA_TIMEOUT", "6e4", "OLLAMA_TIMEOUT=6e4 is 16h 40m: it counts seconds, not milliseconds"),
            ("OLLAMA_STALL_TIMEOUT", "20000", "OLLAMA_STALL_TIMEOUT=20000 is 5h 34m: it counts seconds"),
        ],
    )
    def test_load_settings_warns_of_values_that_are_seldom_meant(self, variable: str, value: str, warning: str) -> None:
        assert any(line.startswith(warning) for line in load(**{variable: value}).warnings)

    @pytest.mark.parametrize(
        ("variable", "value"), [("HISTORY_TOKENS", "300"), ("OLLAMA_TIMEOUT", "9999"), ("OLLAMA_RETRIES", "10")]
    )
    def test_load_settings_accepts_unusual_values_in_silence(self, variable: str, value: str) -> None:
        assert load(**{variable: value}).warnings == load().warnings


class TestValues:
    """Validation of single variables."""

    def test_ids_accept_any_spacing(self) -> None:
        settings = load(ADMIN_IDS=" 1, 2 ,,3,", ALLOWED_CHAT_IDS="-100123")
        assert settings.admin_ids == {1, 2, 3}
        assert settings.allowed_chat_ids == {-100123}

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("REDIS_URL", "redis://localhost:6379/0"),  # plain
            ("REDIS_URL", "rediss://user:p:a/s@s@host"),  # TLS, a password of odd characters
            ("REDIS_URL", "redis+sentinel://a:26379,b:26379/mymaster/0"),  # several sentinels
            ("REDIS_URL", "redis+cluster://[::1]:7000"),  # IPv6
            ("DATABASE_URL", "postgresql://u:p@h:5432/d"),  # plain
            ("DATABASE_URL", "postgresql:///d"),  # a Unix socket
            ("DATABASE_URL", "postgresql://u:p%40%2F%3A@h/d"),  # a password of odd characters
            ("DATABASE_URL", "postgresql://h/d?user=me@cloud"),  # an @ that ends no password
            ("TIMEZONE", "Europe/Berlin"),
            ("REDIS_URL", "redis://h"),  # the default database
            ("REDIS_URL", "redis+sentinel://:p/w@a/stage"),
            ("REDIS_URL", "redis+cluster://a:7000,b:7000/0"),
            ("WEB_HOST", "::"),  # all interfaces, IPv6
            ("WEB_HOST", "fe80::1%eth0"),
            ("WEB_HOST", "bot.internal"),
            ("DATABASE_URL", "sqlite:////var/lib/understudy.db"),  # a file elsewhere
            ("TELEGRAM_API_BASE_URL", "http://127.0.0.1:8081"),  # self-hosted
            ("TELEGRAM_BOT_TOKEN", "42:TEST-token_1"),  # an emulator's short one
        ],
    )
    def test_valid_values_are_kept_unchanged(self, variable: str, value: str) -> None:
        found = getattr(load(**{variable: value}), variable.lower())
        assert (found.get_secret_value() if isinstance(found, SecretStr) else found) == value

    def test_choices_are_case_insensitive(self) -> None:
        settings = load(LOG_LEVEL="WARNING", STREAM_MODE="Draft", LOG_FORMAT="JSON", REMOTE_CONSENT="ASK")
        assert (settings.log_level, settings.stream_mode) == ("warning", "draft")
        assert (settings.log_format, settings.remote_consent) == ("json", "ask")

    @pytest.mark.parametrize(
        ("variable", "value", "told"),
        [
            ("TELEGRAM_BOT_TOKEN", "AAF-no-number", "is not a bot token"),  # the part before the colon is missing
            ("TELEGRAM_BOT_TOKEN", "123:ab cd", "is not a bot token"),  # a space inside
            ("TELEGRAM_MODE", "carrier", "must be polling or webhook"),
            ("TELEGRAM_API_BASE_URL", "localhost:8081", "must begin with http:// or https://"),  # no scheme
            ("TELEGRAM_API_BASE_URL", "http://", "is not a URL"),  # no host
            ("TELEGRAM_API_BASE_URL", "http://h:99999", "is not a URL"),  # no such port
            ("TELEGRAM_API_BASE_URL", "http://u:hunter22@h", "must not hold a user name"),  # a password
            ("TELEGRAM_API_BASE_URL", "http://h/?a=hunter22", "must not hold ?"),
            ("ADMIN_IDS", "1,me", "must be whole numbers"),
            ("ADMIN_IDS", "1.5", "must be whole numbers"),
            ("ALLOWED_USER_IDS", "1_000", "must be whole numbers"),  # Python would take it
            ("ALLOWED_CHAT_IDS", "@group", "must be whole numbers"),
            ("REDIS_URL", "http://u:hunter22@h", "must begin with redis://"),
            ("REDIS_URL", "localhost:6379", "must begin with redis://"),
            ("REDIS_URL", "redis://:hunter22@", "is not a URL"),  # no host
            ("REDIS_URL", "redis://h:port", "is not a URL"),
            ("REDIS_URL", "redis://h/first", "must name its database by a number"),
            ("REDIS_URL", "redis+sentinel://a:1,b:port/stage", "is not a URL"),  # the second of two sentinels
            ("REDIS_URL", "redis+sentinel://a/stage/first", "must name its database by a number"),
            ("REDIS_URL", "redis+cluster://a:7000/3", "must name no database"),
            ("REDIS_PREFIX", "a{b}", "must be 1 to 64"),  # braces choose a cluster's slot
            ("DATABASE_URL", "mysql://u:hunter22@h/d", "must begin with postgresql://"),
            ("DATABASE_URL", "postgresql://h:port/d", "is not a URL"),
            ("DATABASE_URL", "sqlite://", "must name a file"),
            ("DATABASE_URL", "sqlite:///:memory:", "must name a file"),  # a database for each connection
            ("ADMIN_IDS", "-1001234567890", "must be ids of people"),  # a group's
            ("ALLOWED_USER_IDS", "0", "must be ids of people"),
            ("WEB_HOST", "http://0.0.0.0", "must be an address or a host name alone"),
            ("WEB_HOST", "0.0.0.0:8080", "must be an address or a host name alone"),
            ("BUDGET_USER_DAY", "-1", "must be at least 0, for example"),  # no 0.0
            ("BUDGET_DAY", "1e30", "must be at most 1000000, for example"),
            ("WEB_PORT", "0", "must be at least 1"),
            ("WEB_PORT", "70000", "must be at most 65535"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "must begin with http:// or https://"),
            ("WEB_PUBLIC_URL", "bot.example.org", "must begin with http:// or https://"),
            ("WEB_PUBLIC_URL", "https://bot.example.org/console", "must end before the path, without /console"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer abc", "must be name=value, separated by commas"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=", "must be name=value, separated by commas"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5", "must be at most 1"),
            ("OTEL_SERVICE_NAME", "x" * 101, "must be 1 to 100 characters"),
            ("STREAM_MODE", "fast", "must be edit, draft or off"),
            ("HISTORY_TOKENS", "0", "must be above 0"),
            ("HISTORY_TOKENS", "-1", "must be above 0"),
            ("HISTORY_TOKENS", "8k", "must be a whole number"),
            ("HISTORY_TOKENS", "8.5", "must be a whole number"),
            ("SHUTDOWN_TIMEOUT", "0", "must be above 0"),
            ("SHUTDOWN_TIMEOUT", "soon", "must be a number"),
            ("SHUTDOWN_TIMEOUT", "nan", "must be"),
            ("SHUTDOWN_TIMEOUT", "inf", "must be a finite number"),
            ("MODERATION_DRY_RUN", "maybe", "must be true or false"),
            ("LOG_LEVEL", "loud", "must be debug, info, warning, error or critical"),
            ("LOG_FORMAT", "xml", "must be auto, console or json"),
            ("PROVIDER_PREFERRED_TTL", "0", "must be above 0"),
            ("PROVIDER_COOLDOWN", "-300", "must be above 0"),
            ("PROVIDER_MAX_HOPS", "0", "must be above 0"),
            ("REMOTE_CONSENT", "denied", "must be granted or ask"),
            ("TELEGRAM_WEBHOOK_SECRET", "hunter22", "must be 16 to 256 letters"),
            ("TELEGRAM_WEBHOOK_SECRET", "hunter22 hunter22", "must be 16 to 256 letters"),
            ("WEB_TOKEN", "hunter22", "must be 16 characters or more"),
            ("TIMEZONE", "Middle/Earth", "is not the name of a time zone"),
            ("TIMEZONE", "../../etc/passwd", "is not the name of a time zone"),
            ("TIMEZONE", "Europe", "is not the name of a time zone"),  # a folder of the database
            (
                "DATABASE_URL",
                "postgresql://u:hunter22@x@h/d",
                "must have its user name and password percent-encoded (@ as %40)",
            ),
            (
                "DATABASE_URL",
                "postgresql://u:hunter22/x@h/d",
                "must have its user name and password percent-encoded (/ as %2F)",
            ),
            (
                "DATABASE_URL",
                "postgresql://u:hunter22:x@h:5432/d",
                "must have its user name and password percent-encoded (: as %3A)",
            ),
            (
                "DATABASE_URL",
                "postgresql://u:hunter22?x@h/d",
                "must have its user name and password percent-encoded (? as %3F)",
            ),
            ("DATABASE_URL", "postgresql://u:@hunter22/:#@h/d", "(@ as %40, / as %2F, : as %3A, # as %23)"),
            (
                "DATABASE_URL",
                "postgresql://u:hunter22%@h/d",
                "must have its user name and password percent-encoded (% as %25)",
            ),
            (
                "DATABASE_URL",
                "postgresql://me@cloud:hunter22@h/d",
                "must have its user name and password percent-encoded (@ as %40)",
            ),
            ("DATA_DIR", "~nobody-of-that-name/x", "begins with ~"),
        ],
    )
    def test_mistakes_are_one_line_with_variable_fault_and_example(self, variable: str, value: str, told: str) -> None:
        (line,) = load_mistakes(**{variable: value})
        assert line.startswith(f"{variable}: ")
        assert told in line
        assert f", for example {variable}=" in line
        assert "\n" not in line
        assert "hunter22" not in line

    def test_examples_are_valid_values(self) -> None:
        """A mistake proposes its example."""
        for name, field in CommonVariables.model_fields.items():
            if name in {"telegram_bot_token", "available_providers"}:
                continue
            load(**{name.upper(): str(field.examples[0])})
        load(AVAILABLE_PROVIDERS=Settings.model_fields["available_providers"].examples[0])

    def test_webhook_mode_requires_its_variables_and_a_port(self) -> None:
        lines = load_mistakes(TELEGRAM_MODE="webhook")
        assert [line.partition(":")[0] for line in lines] == [
            "TELEGRAM_WEBHOOK_URL",
            "TELEGRAM_WEBHOOK_SECRET",
            "WEB_PORT",
        ]
        url = "https://a.example/t"
        hook = {
            "TELEGRAM_MODE": "webhook",
            "TELEGRAM_WEBHOOK_URL": url,
            "TELEGRAM_WEBHOOK_SECRET": "a-word-of-16-chars",
        }
        assert load(**hook, WEB_PORT="8080").telegram_webhook_url == url

    def test_webhook_url_without_https_requires_a_self_hosted_server(self) -> None:
        hook = {
            "TELEGRAM_MODE": "webhook",
            "TELEGRAM_WEBHOOK_URL": "http://bot:80/t",
            "TELEGRAM_WEBHOOK_SECRET": "a-word-of-16-chars",
            "WEB_PORT": "80",
        }
        assert "must begin with https://" in load_mistakes(**hook)[0]
        load(**hook, TELEGRAM_API_BASE_URL="http://localhost:8081")

    @pytest.mark.parametrize(
        ("path", "fault"),
        [
            ("/telegram", None),
            ("/v10/console", None),
            ("", None),
            ("/v1", "must not be under /v1, which the bot itself serves"),
            ("/v1/telegram", "must not be under /v1, which the bot itself serves"),
            ("/%761/telegram", "must not be under /v1, which the bot itself serves"),
            ("/console/sign-in/", "must not be under /console, which the bot itself serves"),
            ("/battleground/vote", "must not be under /battleground, which the bot itself serves"),
            ("/{token}", "must not hold { or } in its path"),
        ],
    )
    def test_webhook_url_must_not_be_a_path_of_the_bot_itself(self, path: str, fault: str | None) -> None:
        hook = {
            "TELEGRAM_MODE": "webhook",
            "TELEGRAM_WEBHOOK_URL": f"https://bot.example.org{path}",
            "TELEGRAM_WEBHOOK_SECRET": "a-word-of-16-chars",
            "WEB_PORT": "8080",
        }
        if fault is None:
            load(**hook)
        else:
            example = "for example TELEGRAM_WEBHOOK_URL=https://bot.example.org/telegram"
            assert load_mistakes(**hook) == (f"TELEGRAM_WEBHOOK_URL: {fault}, {example}",)

    def test_load_settings_reports_all_mistakes_at_once(self) -> None:
        lines = load_mistakes(
            LOG_LEVEL="loud",
            WEB_PORT="x",
            TELEGRAM_MODE="webhook",
            AVAILABLE_PROVIDERS='{"openai": ["a", "a"], "mine": ["b"], "bad": []}',
            OPENAI_TIMEOUT="-1",
            MINE_KIND="gemini",
            MINE_RETRIES="x",
        )
        assert {line.partition(":")[0] for line in lines} == {
            "LOG_LEVEL",
            "WEB_PORT",
            "TELEGRAM_WEBHOOK_URL",
            "TELEGRAM_WEBHOOK_SECRET",
            "AVAILABLE_PROVIDERS",
            "OPENAI_TIMEOUT",
            "MINE_KIND",
            "MINE_RETRIES",
        }
        assert len([line for line in lines if line.startswith("AVAILABLE_PROVIDERS")]) == 2

    def test_zone_is_the_configured_one_or_that_of_the_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert load(TIMEZONE="Asia/Tokyo").zone == ZoneInfo("Asia/Tokyo")
        machine_zone.cache_clear()
        monkeypatch.setenv("TZ", "America/Lima")
        assert load().zone == ZoneInfo("America/Lima")
        machine_zone.cache_clear()


class TestDaemon:
    """Requirements of the daemon."""

    def test_require_daemon_reports_a_missing_token_and_provider(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(AVAILABLE_PROVIDERS='{"openai": ["m"]}').require_daemon()
        token, providers = caught.value.mistakes
        assert token.startswith("TELEGRAM_BOT_TOKEN: is not set")
        assert "openai: OPENAI_API_KEY is not set" in providers

    def test_require_daemon_rejects_an_empty_list(self) -> None:
        with pytest.raises(ConfigurationError, match="none is listed"):
            load(TELEGRAM_BOT_TOKEN="1:a", AVAILABLE_PROVIDERS="{}").require_daemon()

    def test_console_makes_up_for_a_missing_provider(self) -> None:
        console = {"WEB_PORT": "8080", "WEB_TOKEN": "a-long-random-word"}
        load(TELEGRAM_BOT_TOKEN="1:a", AVAILABLE_PROVIDERS="{}", **console).require_daemon()
        load(AVAILABLE_PROVIDERS="{}", **console).require_provider()

    def test_require_daemon_accepts_one_usable_provider(self) -> None:
        settings = load(TELEGRAM_BOT_TOKEN="1:a", AVAILABLE_PROVIDERS='{"openai": ["m"], "ollama": ["m"]}')
        settings.require_daemon()


class TestSecrets:
    """Secrets are never displayed."""

    def test_repr_holds_no_secret(self) -> None:
        settings = load(
            TELEGRAM_BOT_TOKEN="1:hunter22",
            OPENAI_API_KEY="hunter22",
            REDIS_URL="redis://:hunter22@h",
            DATABASE_URL="postgresql://u:hunter22@h/d",
            WEB_TOKEN="hunter22hunter22",
            TELEGRAM_WEBHOOK_SECRET="hunter22hunter22",
        )
        assert "hunter22" not in repr(settings)
        assert "hunter22" not in str(settings)

    def test_secrets_include_the_keys_in_headers(self) -> None:
        """With and without the word before them, and as they are sent."""
        settings = load(OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer abc%2Fdef, x-team=audience")
        assert {"Bearer abc/def", "abc/def", "audience"} <= set(settings.secrets)

    def test_secrets_include_passwords_of_urls(self) -> None:
        settings = load(
            TELEGRAM_BOT_TOKEN="1:a", OPENAI_API_KEY="key", REDIS_URL="redis://:p%40ss@h", WEB_TOKEN="web-token-0123456"
        )
        assert set(settings.secrets) == {"1:a", "key", "redis://:p%40ss@h", "p%40ss", "p@ss", "web-token-0123456"}


class TestDataDir:
    """The data directory."""

    def test_prepare_data_dir_creates_it(self, tmp_path: Path) -> None:
        settings = load(DATA_DIR=str(tmp_path / "a" / "b"))
        settings.prepare_data_dir()
        assert settings.data_dir.is_dir()
        assert not list(settings.data_dir.iterdir())

    def test_prepare_data_dir_closes_it_and_its_files_to_others(self, tmp_path: Path) -> None:
        """Those of an earlier version too; links are left alone."""
        data, outside = tmp_path / "data", tmp_path / "outside"
        data.mkdir(mode=0o755)
        for path in (data / "understudy.db", data / "inbox.db-wal", outside):
            path.write_text("")
            path.chmod(0o664)
        (data / "link").symlink_to(outside)
        load(DATA_DIR=str(data)).prepare_data_dir()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (data, *data.iterdir())}
        assert modes == {"data": 0o700, "understudy.db": 0o600, "inbox.db-wal": 0o600, "link": 0o664}

    @pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
    def test_prepare_data_dir_on_a_file_system_without_modes_and_open_deleted_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        """As some FUSE and network file systems are."""

        def refuse(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        def unlink(path: str, *_: object, **__: object) -> None:
            opened = {each.resolve() for each in Path("/proc/self/fd").iterdir()}
            if Path(path).resolve() in opened:
                raise OSError(errno.EBUSY, "the file is open")
            remove(path)

        remove, create = os.remove, os.open

        def open_named(path: str, flags: int, *more: Any, **named: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return create(path, flags, *more, **named)

        data = tmp_path / "data"
        data.mkdir(mode=0o755)
        monkeypatch.setattr(os, "chmod", refuse)
        monkeypatch.setattr(os, "unlink", unlink)
        monkeypatch.setattr(os, "open", open_named)
        load(DATA_DIR=str(data)).prepare_data_dir()
        assert not list(data.iterdir())

    def test_prepare_data_dir_leaves_a_directory_of_many_users_alone(self, tmp_path: Path) -> None:
        """Such as /tmp, which its sticky bit marks."""
        tmp_path.chmod(0o1777)
        (tmp_path / "of-another").write_text("")
        (tmp_path / "of-another").chmod(0o644)
        load(DATA_DIR=str(tmp_path)).prepare_data_dir()
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777
        assert stat.S_IMODE((tmp_path / "of-another").stat().st_mode) == 0o644

    def test_require_writable_data_dir_creates_nothing(self, tmp_path: Path) -> None:
        load(DATA_DIR=str(tmp_path / "a" / "b")).require_writable_data_dir()
        assert not list(tmp_path.iterdir())

    def test_prepare_data_dir_rejects_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        for place in ("a", "a/b"):
            settings = load(DATA_DIR=str(tmp_path / place))
            for use in (settings.prepare_data_dir, settings.require_writable_data_dir):
                with pytest.raises(ConfigurationError) as caught:
                    use()
                (line,) = caught.value.mistakes
                assert line.startswith("DATA_DIR: cannot be written to (")

    def test_prepare_data_dir_rejects_an_unwritable_directory(self) -> None:
        """/proc refuses even the superuser."""
        with pytest.raises(ConfigurationError, match="DATA_DIR: cannot be written to"):
            load(DATA_DIR="/proc").prepare_data_dir()

    def test_data_dir_expands_the_tilde(self) -> None:
        assert load(DATA_DIR="~/x").data_dir == Path.home() / "x"


def test_public_address_is_kept_in_one_spelling() -> None:
    assert load(WEB_PUBLIC_URL="HTTPS://Bot.Example.org:8443/").web_public_url == "https://bot.example.org:8443"
