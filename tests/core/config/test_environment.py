"""Variables from the environment and the env file, and warnings about misspelt ones."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from core.config.settings import load_settings
from core.errors import ConfigurationError
from tests.support.settings import load


class TestSources:
    """The environment and the env file."""

    def test_environment_overrides_the_file(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("LOG_LEVEL=debug\nHISTORY_TOKENS=10\n")
        settings = load_settings(env_file, {"LOG_LEVEL": "error"})
        assert (settings.log_level, settings.history_tokens) == ("error", 10)

    def test_load_settings_reads_the_process_environment_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HISTORY_TOKENS", "77")
        assert load_settings(None).history_tokens == 77

    def test_empty_values_count_as_unset(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("LOG_LEVEL=debug\nWEB_PORT=\nREDIS_URL=''\n")
        settings = load_settings(env_file, {"LOG_LEVEL": "", "HISTORY_TOKENS": "  "})
        assert (settings.log_level, settings.web_port, settings.redis_url) == ("debug", None, None)
        assert settings.history_tokens == 8000

    def test_missing_file_counts_as_empty(self, tmp_path: Path) -> None:
        assert load_settings(tmp_path / "none", {}).log_level == "info"

    def test_file_may_have_a_byte_order_mark_comments_quotes_and_export(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_bytes(
            b"\xef\xbb\xbfLOG_LEVEL=debug # loud\r\n# nothing\nexport WEB_TOKEN='a b c d e f g h i'\n"
            b'AVAILABLE_PROVIDERS=\'{"demo": ["d"]}\'\n'
        )
        settings = load_settings(env_file, {})
        assert settings.log_level == "debug"
        assert settings.web_token == SecretStr("a b c d e f g h i")
        assert settings.available_providers == {"demo": ("d",)}

    def test_file_is_not_interpolated(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("REDIS_URL=redis://:a${HOME}b@h/0\n")
        url = load_settings(env_file, {"HOME": "/root"}).redis_url
        assert url
        assert url.get_secret_value() == "redis://:a${HOME}b@h/0"

    def test_upper_case_names_override_lower_case_ones(self) -> None:
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
    def test_unparsable_lines_are_reported_without_their_text(self, tmp_path: Path, content: bytes, told: str) -> None:
        env_file = tmp_path / ".env"
        env_file.write_bytes(content)
        with pytest.raises(ConfigurationError) as caught:
            load_settings(env_file, {})
        (line,) = caught.value.mistakes
        assert told in line
        assert "abc" not in line
        assert "hello" not in line

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ('{\n  "a": ["m"],\n  "b": ["n"]\n}\n', "is JSON over several lines (.env, line 2), write it on one line"),
            ('{"a": [\n  "m]",\n  "n"\n]}\n', "is JSON over several lines"),  # a bracket in a name
            ('"{\n  "a": ["m"]\n}"\n', "is JSON over several lines"),  # in quotes that do not hold it together
            ('"{"a": ["m"]}"\n', "is JSON in double quotes (.env, line 2), leave the outer quotes out"),
        ],
    )
    def test_split_json_in_the_file_is_one_mistake(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, told: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path(".env").write_text(f"LOG_LEVEL=debug\nAVAILABLE_PROVIDERS={content}HISTORY_TOKENS=10\n")
        with pytest.raises(ConfigurationError) as caught:
            load_settings(environ={})
        (line,) = caught.value.mistakes
        assert line.startswith(f"AVAILABLE_PROVIDERS: {told}")
        assert line.endswith('for example AVAILABLE_PROVIDERS={"ollama": ["gpt-oss"]}')

    @pytest.mark.parametrize(
        "content", ['\'{\n  "a": ["m"]\n}\'', '{"a": ["m"]} # mine', "{\"a\": ['m']}", '"{\\"a\\": [\\"m\\"]}"']
    )
    def test_json_in_the_file_is_otherwise_read_as_dotenv_reads_it(self, tmp_path: Path, content: str) -> None:
        """In single quotes it may go over several lines."""
        env_file = tmp_path / ".env"
        env_file.write_text(f"AVAILABLE_PROVIDERS={content}\nHISTORY_TOKENS=10\n")
        if "'m'" in content:
            with pytest.raises(ConfigurationError, match="AVAILABLE_PROVIDERS: is not JSON"):
                load_settings(env_file, {})
            return
        settings = load_settings(env_file, {})
        assert (settings.available_providers, settings.history_tokens) == ({"a": ("m",)}, 10)

    def test_directory_in_place_of_the_file_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_settings(tmp_path, {})

    def test_duplicate_variables_in_the_file_cause_a_warning(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("LOG_LEVEL=debug\nLOG_LEVEL=error\n")
        settings = load_settings(env_file, {})
        assert settings.log_level == "error"
        assert any(line.startswith("LOG_LEVEL is set more than once") for line in settings.warnings)


class TestMisspelt:
    """Warnings about misspelt variables."""

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
    def test_misspelt_provider_variables_cause_a_warning(self, variable: str, meant: str) -> None:
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
            "LOGLEVEL",  # in the environment it may belong to another program
        ],
    )
    def test_variables_of_other_programs_cause_no_warning(self, variable: str) -> None:
        assert not [line for line in load(**{variable: "http://x"}).warnings if variable in line]

    def test_misspelt_common_settings_cause_a_warning_in_the_file_only(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("TELEGRAM_BOT_TOKN=1:hunter22\n")
        warnings = load_settings(env_file, {}).warnings
        assert "TELEGRAM_BOT_TOKN is unknown and ignored, did you mean TELEGRAM_BOT_TOKEN?" in warnings
        assert not [line for line in warnings if "hunter22" in line]


class TestUnlisted:
    """Warnings about variables of providers that AVAILABLE_PROVIDERS does not list."""

    @pytest.mark.parametrize(
        ("variable", "told"),
        [
            ("AZURE_API_KEY", 'AVAILABLE_PROVIDERS does not list the provider "azure", for example'),
            ("MY_LAB_FIRST_TOKEN_TIMEOUT", 'does not list the provider "my_lab"'),  # the longest suffix
            ("OPENIA_API_KEY", "lists no such provider, did you mean OPENAI_API_KEY?"),
            ("OLAMA_BASE_URL", "lists no such provider, did you mean OLLAMA_BASE_URL?"),
        ],
    )
    def test_variables_in_the_file_cause_one_warning(self, tmp_path: Path, variable: str, told: str) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text(f"{variable}=hunter22\n")
        (line,) = [line for line in load_settings(env_file, {}).warnings if variable in line]
        assert line.startswith(f"{variable} is ignored: ")
        assert told in line
        assert "hunter22" not in line

    @pytest.mark.parametrize(
        "variable",
        [
            "GROQ_API_KEY",  # the name of a kind
            "LAB_BASE_URL",  # a suffix that few others use
            "OPEN_AI_API_KEY",  # resembles a listed id
        ],
    )
    def test_variables_in_the_environment_cause_a_warning_where_they_are_likely_ours(self, variable: str) -> None:
        assert [line for line in load(**{variable: "hunter22"}).warnings if line.startswith(f"{variable} is ignored")]

    @pytest.mark.parametrize(
        "variable", ["GITHUB_API_KEY", "PIP_TIMEOUT", "PIP_RETRIES", "OTEL_EXPORTER_OTLP_TIMEOUT", "TIMEOUT"]
    )
    def test_variables_of_other_programs_cause_no_warning(self, variable: str) -> None:
        assert not [line for line in load(**{variable: "10"}).warnings if variable in line]

    def test_available_providers_that_list_none_cause_a_warning(self) -> None:
        (line,) = load(AVAILABLE_PROVIDERS="{}").warnings
        assert line == 'AVAILABLE_PROVIDERS: lists no provider, for example AVAILABLE_PROVIDERS={"ollama": ["gpt-oss"]}'
