"""The settings: what is read, what is refused and how that reads."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.config.providers import Price, ProviderKind, ProviderSettings
from core.config.settings import Settings, load_settings
from core.errors import ConfigurationError


def load(**environ: str) -> Settings:
    """Settings from these variables alone."""
    return load_settings(env_file=None, environ=environ)


def provider(provider_id: str, **environ: str) -> ProviderSettings:
    """The only provider, with one model, read from these variables."""
    (found,) = load(AVAILABLE_PROVIDERS=json.dumps({provider_id: ["m"]}), **environ).providers
    return found


def mistakes(**environ: str) -> tuple[str, ...]:
    """The lines that these variables are answered with."""
    with pytest.raises(ConfigurationError) as caught:
        load(**environ)
    return caught.value.mistakes


class TestDefaults:
    """What holds when nothing, or next to nothing, is set."""

    def test_nothing_set_gives_the_documented_defaults(self) -> None:
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

    def test_a_settings_object_is_built_without_any_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tests of others depend on nothing around them."""
        monkeypatch.setenv("LOG_LEVEL", "debug")
        monkeypatch.setenv("HISTORY_TOKENS", "nonsense")
        assert Settings(telegram_bot_token=SecretStr("1:a")).log_level == "info"

    def test_a_provider_is_built_directly(self) -> None:
        built = ProviderSettings(id="a", kind=ProviderKind.OPENAI_COMPATIBLE, models=("m", "n"), base_url="http://h/v1")
        assert built.default_model == "m"
        assert (built.timeout_s, built.first_token_timeout_s, built.stall_timeout_s, built.retries) == (60, 12, 20, 1)
        assert hash(built)

    def test_an_unset_default_provider_is_told_as_a_warning(self) -> None:
        settings = load()
        assert settings.providers[0].missing is None
        assert settings.providers[1].missing == "OPENAI_API_KEY is not set"
        assert settings.warnings == ("openai is left out: OPENAI_API_KEY is not set",)


class TestSources:
    """The environment and the env file."""

    def test_the_environment_wins_over_the_file(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("LOG_LEVEL=debug\nHISTORY_TOKENS=10\n")
        settings = load_settings(env_file, {"LOG_LEVEL": "error"})
        assert (settings.log_level, settings.history_tokens) == ("error", 10)

    def test_without_an_environment_given_the_process_own_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HISTORY_TOKENS", "77")
        assert load_settings(None).history_tokens == 77

    def test_an_empty_value_is_unset_and_hides_nothing(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("LOG_LEVEL=debug\nWEB_PORT=\nREDIS_URL=''\n")
        settings = load_settings(env_file, {"LOG_LEVEL": "", "HISTORY_TOKENS": "  "})
        assert (settings.log_level, settings.web_port, settings.redis_url) == ("debug", None, None)
        assert settings.history_tokens == 8000

    def test_a_missing_file_is_an_empty_one(self, tmp_path: Path) -> None:
        assert load_settings(tmp_path / "none", {}).log_level == "info"

    def test_the_file_may_have_a_byte_order_mark_comments_quotes_and_export(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_bytes(
            b"\xef\xbb\xbfLOG_LEVEL=debug # loud\r\n# nothing\nexport WEB_TOKEN='a b'\n"
            b'AVAILABLE_PROVIDERS=\'{"demo": ["d"]}\'\n'
        )
        settings = load_settings(env_file, {})
        assert settings.log_level == "debug"
        assert settings.web_token == SecretStr("a b")
        assert settings.available_providers == {"demo": ("d",)}

    def test_nothing_is_interpolated_into_a_password(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("REDIS_URL=redis://:a${HOME}b@h/0\n")
        url = load_settings(env_file, {"HOME": "/root"}).redis_url
        assert url
        assert url.get_secret_value() == "redis://:a${HOME}b@h/0"

    def test_lower_case_names_are_read_and_upper_case_ones_win(self) -> None:
        assert load(log_level="debug").log_level == "debug"
        assert load(LOG_LEVEL="error", log_level="debug").log_level == "error"

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"LOG_LEVEL=info\n\nhello there\n", "line 3: is not a setting"),  # a sentence
            (b"LOG_LEVEL\n", "line 1: is not a setting"),  # no value
            (b"WEB_TOKEN='abc\n", "line 1: is not a setting"),  # an open quote
            (b"LOG_LEVEL=\xff\xfe\n", "is not UTF-8"),  # another encoding
        ],
    )
    def test_a_file_that_cannot_be_read_is_told_by_line_without_its_text(
        self, tmp_path: Path, content: bytes, told: str
    ) -> None:
        env_file = tmp_path / ".env"
        env_file.write_bytes(content)
        with pytest.raises(ConfigurationError) as caught:
            load_settings(env_file, {})
        (line,) = caught.value.mistakes
        assert told in line
        assert "abc" not in line
        assert "hello" not in line

    def test_a_folder_in_the_file_s_place_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_settings(tmp_path, {})

    def test_a_variable_that_the_file_sets_twice_is_warned_of(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("LOG_LEVEL=debug\nLOG_LEVEL=error\n")
        settings = load_settings(env_file, {})
        assert settings.log_level == "error"
        assert any(line.startswith("LOG_LEVEL is set more than once") for line in settings.warnings)


class TestValues:
    """Single variables that are no provider's."""

    def test_ids_are_read_with_any_spacing(self) -> None:
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
            ("DATABASE_URL", "sqlite:////var/lib/understudy.db"),  # a file elsewhere
            ("TELEGRAM_API_BASE_URL", "http://127.0.0.1:8081"),  # self-hosted
            ("TELEGRAM_BOT_TOKEN", "42:TEST-token_1"),  # an emulator's short one
        ],
    )
    def test_good_values_are_taken_as_they_are(self, variable: str, value: str) -> None:
        found = getattr(load(**{variable: value}), variable.lower())
        assert (found.get_secret_value() if isinstance(found, SecretStr) else found) == value

    def test_choices_are_taken_in_any_case(self) -> None:
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
            ("REDIS_PREFIX", "a{b}", "must be 1 to 64"),  # braces choose a cluster's slot
            ("DATABASE_URL", "mysql://u:hunter22@h/d", "must begin with postgresql://"),
            ("DATABASE_URL", "postgresql://h:port/d", "is not a URL"),
            ("WEB_PORT", "0", "must be at least 1"),
            ("WEB_PORT", "70000", "must be at most 65535"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "must begin with http:// or https://"),
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
            ("DATA_DIR", "~nobody-of-that-name/x", "begins with ~"),
        ],
    )
    def test_a_mistake_is_one_line_with_the_variable_the_reason_and_an_example(
        self, variable: str, value: str, told: str
    ) -> None:
        (line,) = mistakes(**{variable: value})
        assert line.startswith(f"{variable}: ")
        assert told in line
        assert f", for example {variable}=" in line
        assert "\n" not in line
        assert "hunter22" not in line

    def test_every_example_is_a_good_value(self) -> None:
        """What a mistake's line proposes must not be the next mistake."""
        for name, field in type(load()).model_fields.items():
            if name in {"providers", "warnings", "telegram_bot_token", "available_providers"}:
                continue
            load(**{name.upper(): str(field.examples[0])})
        load(AVAILABLE_PROVIDERS=Settings.model_fields["available_providers"].examples[0])

    def test_webhook_mode_asks_for_its_variables_and_a_port_to_be_delivered_to(self) -> None:
        lines = mistakes(TELEGRAM_MODE="webhook")
        assert [line.partition(":")[0] for line in lines] == [
            "TELEGRAM_WEBHOOK_URL",
            "TELEGRAM_WEBHOOK_SECRET",
            "WEB_PORT",
        ]
        url = "https://a.example/t"
        hook = {"TELEGRAM_MODE": "webhook", "TELEGRAM_WEBHOOK_URL": url, "TELEGRAM_WEBHOOK_SECRET": "word"}
        assert load(**hook, WEB_PORT="8080").telegram_webhook_url == url

    def test_a_webhook_without_https_is_for_a_self_hosted_server_only(self) -> None:
        hook = {
            "TELEGRAM_MODE": "webhook",
            "TELEGRAM_WEBHOOK_URL": "http://bot:80/t",
            "TELEGRAM_WEBHOOK_SECRET": "word",
            "WEB_PORT": "80",
        }
        assert "must begin with https://" in mistakes(**hook)[0]
        load(**hook, TELEGRAM_API_BASE_URL="http://localhost:8081")

    def test_all_mistakes_are_told_at_once_those_of_providers_too(self) -> None:
        lines = mistakes(
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


class TestAvailableProviders:
    """The JSON object of providers and models."""

    def test_the_order_is_kept_and_the_first_model_is_the_default(self) -> None:
        settings = load(AVAILABLE_PROVIDERS='{"z": ["m2", "m1"], "demo": ["d"], "a": ["x"]}')
        assert [each.id for each in settings.providers] == ["z", "demo", "a"]
        assert settings.providers[0].default_model == "m2"

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            ('{"openai": ["a"]', "is not JSON"),  # cut off
            ("'{}'", "leave out the quotes"),  # quotes that nobody took away
            ('["openai"]', "must be a JSON object"),
            ("NaN", "is not JSON"),
            ("[" * 100_000, "nested too deeply"),
            ('{"a": ["m"], "a": ["n"]}', 'holds the key "a" twice'),
            ('{"a": [{"x": 1, "x": 2}]}', 'holds the key "x" twice'),  # at a deeper level
            ('{"openai": []}', "a list of at least one model"),
            ('{"openai": "gpt"}', "a list of at least one model"),  # not a list
            ('{"openai": null}', "a list of at least one model"),
            ('{"openai": ["m", "n", " m "]}', 'lists the model "m" twice'),
            ('{"openai": ["m", ""]}', "a model without a name"),
            ('{"openai": [1]}', "a model without a name"),
            ('{"": ["m"]}', "must be 1 to 32 letters"),
            ('{"open ai": ["m"]}', "must be 1 to 32 letters"),
            ('{"-a": ["m"]}', "must be 1 to 32 letters"),
            ('{"é": ["m"]}', "must be 1 to 32 letters"),
            (json.dumps({"a" * 33: ["m"]}), "must be 1 to 32 letters"),
            ('{"my-llm": ["m"], "my_llm": ["m"]}', "would share MY_LLM_KIND"),  # one prefix
            ('{"Lab": ["m"], "lab": ["m"]}', "would share LAB_KIND"),
            ('{"lab": ["m"], "lab-stall": ["m"]}', "would share LAB_STALL_TIMEOUT"),  # two prefixes, one variable
            ('{"shutdown": ["m"]}', "would share SHUTDOWN_TIMEOUT"),  # a setting of another kind
        ],
    )
    def test_mistakes(self, value: str, told: str) -> None:
        lines = mistakes(AVAILABLE_PROVIDERS=value)
        assert all(line.startswith("AVAILABLE_PROVIDERS: ") for line in lines)
        assert any(told in line for line in lines), lines

    def test_an_empty_object_is_for_the_console_only(self) -> None:
        assert load(AVAILABLE_PROVIDERS="{}").providers == ()


class TestProvider:
    """The `<ID>_...` variables."""

    def test_every_variable_is_read(self) -> None:
        found = provider(
            "my-llm-7",
            MY_LLM_7_KIND="azure_openai",
            MY_LLM_7_BASE_URL="https://x.openai.azure.com/",
            MY_LLM_7_API_KEY="key",
            MY_LLM_7_TIMEOUT="1.5",
            MY_LLM_7_FIRST_TOKEN_TIMEOUT="2",
            MY_LLM_7_STALL_TIMEOUT="3",
            MY_LLM_7_RETRIES="0",
            MY_LLM_7_MAX_CONCURRENCY="4",
            MY_LLM_7_REMOTE="false",
            MY_LLM_7_API_VERSION="2024-10-21",
            MY_LLM_7_DEPLOYMENTS='{"m": "prod"}',
            MY_LLM_7_FAMILIES='{"m": "gpt-5-mini"}',
            MY_LLM_7_PRICES='{"m": [0.25, 2], "n": {"input": 0, "output": 1}}',
        )
        assert found == ProviderSettings(
            id="my-llm-7",
            kind=ProviderKind.AZURE_OPENAI,
            models=("m",),
            base_url="https://x.openai.azure.com",
            api_key=SecretStr("key"),
            timeout_s=1.5,
            first_token_timeout_s=2,
            stall_timeout_s=3,
            retries=0,
            max_concurrency=4,
            remote=False,
            api_version="2024-10-21",
            deployments={"m": "prod"},
            families={"m": "gpt-5-mini"},
            prices={"m": Price(0.25, 2.0), "n": Price(0.0, 1.0)},
            missing=None,
        )

    @pytest.mark.parametrize(
        ("provider_id", "kind", "base_url", "missing"),
        [
            ("ollama", "ollama", "http://localhost:11434/v1", None),
            ("openai", "openai", "https://api.openai.com/v1", "OPENAI_API_KEY is not set"),
            ("OpenAI", "openai", "https://api.openai.com/v1", "OPENAI_API_KEY is not set"),  # as people write it
            ("openrouter", "openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY is not set"),
            ("anthropic", "anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY is not set"),
            ("google", "google", "https://generativelanguage.googleapis.com", "GOOGLE_API_KEY is not set"),
            ("groq", "groq", "https://api.groq.com", "GROQ_API_KEY is not set"),
            ("mistral", "mistral", "https://api.mistral.ai", "MISTRAL_API_KEY is not set"),
            ("deepseek", "deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY is not set"),
            ("demo", "demo", None, None),
            ("lab", "openai_compatible", None, "LAB_BASE_URL is not set"),  # any other id
        ],
    )
    def test_an_id_alone_gives_kind_address_and_what_is_missing(
        self, provider_id: str, kind: str, base_url: str, missing: str | None
    ) -> None:
        found = provider(provider_id)
        assert (found.kind, found.base_url, found.missing) == (kind, base_url, missing)

    def test_a_key_makes_it_complete(self) -> None:
        assert provider("openai", OPENAI_API_KEY="sk-1").missing is None

    def test_a_local_address_does_not_replace_the_key(self) -> None:
        assert provider("openai", OPENAI_BASE_URL="http://127.0.0.1:1/v1").missing == "OPENAI_API_KEY is not set"

    def test_an_azure_provider_tells_of_all_that_is_missing(self) -> None:
        found = provider("azure", AZURE_KIND="azure_openai", AZURE_DEPLOYMENTS='{"m": "prod"}')
        assert found.missing == "AZURE_BASE_URL, AZURE_API_KEY, AZURE_API_VERSION are not set"

    @pytest.mark.parametrize(
        ("variable", "value", "base_url"),
        [
            ("OLLAMA_URL", "http://gpu:11434", "http://gpu:11434/v1"),  # as other tools call it
            ("OLLAMA_BASE_URL", "http://gpu:11434/", "http://gpu:11434/v1"),  # only a slash is no path
            ("OLLAMA_BASE_URL", "http://gpu:11434/v1/", "http://gpu:11434/v1"),
            ("OLLAMA_BASE_URL", "https://gpu/ollama/v1", "https://gpu/ollama/v1"),  # a path stays
        ],
    )
    def test_the_address_of_ollama(self, variable: str, value: str, base_url: str) -> None:
        assert provider("ollama", **{variable: value}).base_url == base_url

    def test_the_address_of_ollama_prefers_its_own_name(self) -> None:
        found = provider("ollama", OLLAMA_URL="http://a", OLLAMA_BASE_URL="http://b")
        assert found.base_url == "http://b/v1"

    def test_a_mistake_in_the_other_name_of_ollama_s_address_is_told_by_that_name(self) -> None:
        (line,) = mistakes(OLLAMA_URL="gpu:11434")
        assert line.startswith("OLLAMA_URL: must begin with http://")

    @pytest.mark.parametrize(
        ("base_url", "remote"),
        [
            ("http://localhost:1/v1", False),
            ("http://LOCALHOST./v1", False),
            ("http://127.0.0.1:1/v1", False),
            ("http://127.1/v1", False),  # the C library's short form
            ("http://[::1]:1/v1", False),
            ("http://10.1.2.3/v1", False),
            ("http://172.31.0.1/v1", False),
            ("http://172.32.0.1/v1", True),  # just outside 172.16/12
            ("http://192.168.0.9/v1", False),
            ("http://169.254.1.1/v1", False),  # link-local
            ("http://[fd00::1]/v1", False),
            ("http://[::ffff:10.0.0.1]/v1", False),  # IPv4 in IPv6
            ("http://[::ffff:8.8.8.8]/v1", True),
            ("http://gpu.local/v1", False),
            ("http://vllm:8000/v1", False),  # a container
            ("http://8.8.8.8/v1", True),
            ("http://134744072/v1", True),  # 8.8.8.8 without dots
            ("http://100.64.0.1/v1", True),  # shared address space is not ours alone
            ("https://llm.example.org/v1", True),
            ("https://localhost.example.org/v1", True),
            ("https://10.example.org/v1", True),
        ],
    )
    def test_remote_follows_from_the_address(self, base_url: str, remote: bool) -> None:  # noqa: FBT001 - a column
        assert provider("lab", LAB_BASE_URL=base_url).remote is remote
        assert provider("lab", LAB_BASE_URL=base_url, LAB_REMOTE=str(not remote)).remote is not remote

    @pytest.mark.parametrize(
        ("provider_id", "remote"),
        [
            ("ollama", False),
            ("openai", True),
            ("google", True),
            ("groq", True),
            ("mistral", True),
            ("deepseek", True),
            ("demo", False),
        ],
    )
    def test_remote_of_the_default_addresses(self, provider_id: str, remote: bool) -> None:  # noqa: FBT001 - a column
        assert provider(provider_id).remote is remote

    @pytest.mark.parametrize(
        ("variable", "value", "told"),
        [
            ("LAB_KIND", "gemini", "unknown kind, known are openai_compatible, openai, ollama"),
            ("LAB_BASE_URL", "lab:8000", "must begin with http://"),
            ("LAB_BASE_URL", "http://user:hunter22@lab", "must not hold a user name"),
            ("LAB_API_KEY", "hunter22 hunter22", "holds a space or a character"),
            ("LAB_API_KEY", "“hunter22”", "holds a space or a character"),  # typographic quotes of a chat
            ("LAB_TIMEOUT", "0", "must be above 0"),
            ("LAB_FIRST_TOKEN_TIMEOUT", "-1", "must be above 0"),
            ("LAB_STALL_TIMEOUT", "inf", "must be"),
            ("LAB_RETRIES", "-1", "must be at least 0"),
            ("LAB_RETRIES", "11", "must be at most 10"),
            ("LAB_MAX_CONCURRENCY", "0", "must be above 0"),
            ("LAB_REMOTE", "far", "must be true or false"),
            ("LAB_DEPLOYMENTS", '{"m": "a", "m": "b"}', 'holds the key "m" twice'),
            ("LAB_DEPLOYMENTS", '{"m": ""}', '"m" must have a name'),
            ("LAB_FAMILIES", '{"m": 1}', '"m" must have a name'),
            ("LAB_FAMILIES", "m=gpt", "is not JSON"),
            ("LAB_PRICES", '{"m": [1]}', '"m" must have its input and output price'),
            ("LAB_PRICES", '{"m": [1, -1]}', "numbers of at least 0"),
            ("LAB_PRICES", '{"m": [true, 1]}', "numbers of at least 0"),
            ("LAB_PRICES", '{"m": ["1", "2"]}', "numbers of at least 0"),
            ("LAB_PRICES", '{"m": {"input": 1}}', "its input and output price"),
            ("LAB_PRICES", f'{{"m": [1, 1{"0" * 400}]}}', "its input and output price"),  # no float is so large
            ("LAB_PRICES", '{"m": {"input": 1, "input": 2, "output": 1}}', 'holds the key "input" twice'),
        ],
    )
    def test_mistakes_name_the_variable_in_full(self, variable: str, value: str, told: str) -> None:
        (line,) = mistakes(AVAILABLE_PROVIDERS='{"lab": ["m"]}', **{variable: value})
        assert line.startswith(f"{variable}: ")
        assert told in line
        assert f", for example {variable}=" in line
        assert "hunter22" not in line

    def test_an_azure_model_without_a_deployment_is_a_mistake_each(self) -> None:
        lines = mistakes(
            AVAILABLE_PROVIDERS='{"azure": ["m", "n", "o"]}',
            AZURE_KIND="azure_openai",
            AZURE_DEPLOYMENTS='{"n": "prod"}',
        )
        assert len(lines) == 2
        assert lines[0].startswith('AZURE_DEPLOYMENTS: has no deployment for the model "m"')
        assert '"o"' in lines[1]


class TestDaemon:
    """What the daemon cannot do without."""

    def test_it_needs_a_token_and_a_provider_and_tells_of_both(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(AVAILABLE_PROVIDERS='{"openai": ["m"]}').require_daemon()
        token, providers = caught.value.mistakes
        assert token.startswith("TELEGRAM_BOT_TOKEN: is not set")
        assert "openai: OPENAI_API_KEY is not set" in providers

    def test_no_provider_listed_at_all(self) -> None:
        with pytest.raises(ConfigurationError, match="none is listed"):
            load(AVAILABLE_PROVIDERS="{}").require_provider()

    def test_one_usable_provider_is_enough(self) -> None:
        settings = load(TELEGRAM_BOT_TOKEN="1:a", AVAILABLE_PROVIDERS='{"openai": ["m"], "ollama": ["m"]}')
        settings.require_provider()
        settings.require_daemon()


class TestMisspelt:
    """Variables that nobody reads although somebody meant them."""

    @pytest.mark.parametrize(
        ("variable", "meant"),
        [
            ("OPENAI_TIMOUT", "OPENAI_TIMEOUT"),
            ("OPENAI_BASEURL", "OPENAI_BASE_URL"),
            ("OPENAI_APIKEY", "OPENAI_API_KEY"),
            ("OPENAI_RETRYS", "OPENAI_RETRIES"),
            ("OPENAI_KEY", "OPENAI_API_KEY"),  # other programs' name
            ("OPENAI_URL", "OPENAI_BASE_URL"),  # only Ollama's is taken
        ],
    )
    def test_a_provider_s_variable_is_warned_of(self, variable: str, meant: str) -> None:
        line = f"{variable} is unknown and ignored, did you mean {meant}?"
        assert line in load(**{variable: "hunter22"}).warnings

    @pytest.mark.parametrize(
        "variable",
        [
            "OLLAMA_HOST",  # Ollama's own
            "OLLAMA_MODELS",
            "OLLAMA_KEEP_ALIVE",
            "OLLAMA_URL",  # taken
            "OPENAI_ORG_ID",  # the library's own
            "OPENAI_LOG",
            "GROQ_TIMOUT",  # of no listed provider
            "LOGLEVEL",  # in the environment it may be anybody's
        ],
    )
    def test_what_belongs_to_others_is_left_alone(self, variable: str) -> None:
        assert not [line for line in load(**{variable: "http://x"}).warnings if variable in line]

    def test_a_common_setting_is_warned_of_in_the_file_only(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("TELEGRAM_BOT_TOKN=1:hunter22\nAZURE_API_KEY=left-over\n")
        warnings = load_settings(env_file, {}).warnings
        assert "TELEGRAM_BOT_TOKN is unknown and ignored, did you mean TELEGRAM_BOT_TOKEN?" in warnings
        assert not [line for line in warnings if "AZURE" in line or "hunter22" in line]


class TestSecrets:
    """Secrets in what is shown."""

    def test_no_secret_is_in_the_repr(self) -> None:
        settings = load(
            TELEGRAM_BOT_TOKEN="1:hunter22",
            OPENAI_API_KEY="hunter22",
            REDIS_URL="redis://:hunter22@h",
            DATABASE_URL="postgresql://u:hunter22@h/d",
            WEB_TOKEN="hunter22",
            TELEGRAM_WEBHOOK_SECRET="hunter22",
        )
        assert "hunter22" not in repr(settings)
        assert "hunter22" not in str(settings)

    def test_the_keys_in_headers_are_secrets(self) -> None:
        """With and without the word before them, and as they are sent."""
        settings = load(OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer abc%2Fdef, x-team=audience")
        assert {"Bearer abc/def", "abc/def", "audience"} <= set(settings.secrets)

    def test_all_secrets_are_listed_for_the_log_passwords_too(self) -> None:
        settings = load(
            TELEGRAM_BOT_TOKEN="1:a", OPENAI_API_KEY="key", REDIS_URL="redis://:p%40ss@h", WEB_TOKEN="web-token"
        )
        assert set(settings.secrets) == {"1:a", "key", "redis://:p%40ss@h", "p%40ss", "p@ss", "web-token"}


class TestDataDir:
    """The folder for what must last."""

    def test_it_is_created(self, tmp_path: Path) -> None:
        settings = load(DATA_DIR=str(tmp_path / "a" / "b"))
        settings.prepare_data_dir()
        assert settings.data_dir.is_dir()
        assert not list(settings.data_dir.iterdir())

    def test_a_file_in_its_place_is_a_mistake(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        for place in ("a", "a/b"):
            with pytest.raises(ConfigurationError) as caught:
                load(DATA_DIR=str(tmp_path / place)).prepare_data_dir()
            (line,) = caught.value.mistakes
            assert line.startswith("DATA_DIR: cannot be written to (")

    def test_a_folder_that_takes_no_file_is_a_mistake(self) -> None:
        """/proc refuses even the superuser."""
        with pytest.raises(ConfigurationError, match="DATA_DIR: cannot be written to"):
            load(DATA_DIR="/proc").prepare_data_dir()

    def test_the_home_directory_may_be_written_as_tilde(self) -> None:
        assert load(DATA_DIR="~/x").data_dir == Path.home() / "x"
