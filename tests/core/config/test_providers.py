"""Settings of providers: AVAILABLE_PROVIDERS and the `<ID>_...` variables."""

import json

import pytest
from pydantic import SecretStr

from core.config.providers import LiveModels, Price, ProviderKind, ProviderSettings
from tests.support.settings import load, load_mistakes, load_provider


class TestAvailableProviders:
    """The JSON object of providers and models."""

    def test_available_providers_keep_their_order_and_default_model(self) -> None:
        settings = load(AVAILABLE_PROVIDERS='{"z": ["m2", "m1"], "demo": ["d"], "a": ["x"]}')
        assert [each.id for each in settings.providers] == ["z", "demo", "a"]
        assert settings.providers[0].default_model == "m2"

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            ('{"openai": ["a"]', "is not JSON"),  # cut off
            ("'{}'", "leave out the quotes"),  # quotes around the value
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
    def test_available_providers_reports_mistakes(self, value: str, told: str) -> None:
        lines = load_mistakes(AVAILABLE_PROVIDERS=value)
        assert all(line.startswith("AVAILABLE_PROVIDERS: ") for line in lines)
        assert any(told in line for line in lines), lines

    def test_available_providers_may_be_empty(self) -> None:
        assert load(AVAILABLE_PROVIDERS="{}").providers == ()


class TestProvider:
    """The `<ID>_...` variables."""

    def test_provider_variables_are_all_read(self) -> None:
        found = load_provider(
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
            MY_LLM_7_LIVE_MODELS="True",
            MY_LLM_7_API_VERSION="2024-10-21",
            MY_LLM_7_DEPLOYMENTS='{"m": "prod"}',
            MY_LLM_7_FAMILIES='{"m": "gpt-5-mini"}',
            MY_LLM_7_CONTEXT='{"m": 8192}',
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
            live_models=LiveModels.TRUE,
            api_version="2024-10-21",
            deployments={"m": "prod"},
            families={"m": "gpt-5-mini"},
            contexts={"m": 8192},
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
    def test_provider_id_implies_kind_and_address(
        self, provider_id: str, kind: str, base_url: str, missing: str | None
    ) -> None:
        found = load_provider(provider_id)
        assert (found.kind, found.base_url, found.missing) == (kind, base_url, missing)

    def test_provider_with_its_key_is_usable(self) -> None:
        assert load_provider("openai", OPENAI_API_KEY="sk-1").missing is None

    def test_provider_at_a_local_address_still_requires_its_key(self) -> None:
        assert load_provider("openai", OPENAI_BASE_URL="http://127.0.0.1:1/v1").missing == "OPENAI_API_KEY is not set"

    def test_azure_reports_all_missing_variables(self) -> None:
        found = load_provider("azure", AZURE_KIND="azure_openai", AZURE_DEPLOYMENTS='{"m": "prod"}')
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
    def test_ollama_address_is_completed(self, variable: str, value: str, base_url: str) -> None:
        assert load_provider("ollama", **{variable: value}).base_url == base_url

    def test_ollama_base_url_overrides_its_alias(self) -> None:
        found = load_provider("ollama", OLLAMA_URL="http://a", OLLAMA_BASE_URL="http://b")
        assert found.base_url == "http://b/v1"

    @pytest.mark.parametrize(
        ("provider_id", "models"),
        [
            ("ollama", ("qwen", "m")),  # put first
            ("openai", ("m",)),  # listed already
            ("lab", ("m",)),  # not a name of the origin
        ],
    )
    def test_model_name_of_the_origin_becomes_the_default(self, provider_id: str, models: tuple[str, ...]) -> None:
        names = {"OLLAMA_MODEL_NAME": "qwen", "OPENAI_MODEL_NAME": "m", "LAB_MODEL_NAME": "other"}
        assert load_provider(provider_id, **names).models == models

    def test_ollama_alias_is_named_in_mistakes(self) -> None:
        (line,) = load_mistakes(OLLAMA_URL="gpu:11434")
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
    def test_remote_is_derived_from_the_address(self, base_url: str, remote: bool) -> None:
        assert load_provider("lab", LAB_BASE_URL=base_url).remote is remote
        assert load_provider("lab", LAB_BASE_URL=base_url, LAB_REMOTE=str(not remote)).remote is not remote

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
    def test_remote_is_derived_from_the_default_address(self, provider_id: str, remote: bool) -> None:
        assert load_provider(provider_id).remote is remote

    @pytest.mark.parametrize(
        ("variable", "value", "told"),
        [
            ("LAB_KIND", "gemini", "unknown kind, known are openai_compatible, openai, ollama"),
            ("LAB_BASE_URL", "lab:8000", "must begin with http://"),
            ("LAB_BASE_URL", "http://user:hunter22@lab", "must not hold a user name"),
            ("LAB_BASE_URL", "http://lab/v1/chat/completions", "must not end in /chat/completions, which is appended"),
            ("LAB_BASE_URL", "http://lab/v1/chat/completions/", "must not end in /chat/completions"),
            ("LAB_BASE_URL", "https://lab/v1/messages", "must not end in /messages"),
            ("LAB_BASE_URL", "http://lab:11434/api/chat", "must not end in /api/chat"),
            ("LAB_API_KEY", "hunter22 hunter22", "holds a space or a character"),
            ("LAB_API_KEY", "“hunter22”", "holds a space or a character"),  # typographic quotes of a chat
            ("LAB_API_KEY", "'hunter22'", "holds a space or a character"),  # as Docker's --env-file passes it on
            ("LAB_TIMEOUT", "0", "must be above 0"),
            ("LAB_FIRST_TOKEN_TIMEOUT", "-1", "must be above 0"),
            ("LAB_STALL_TIMEOUT", "inf", "must be"),
            ("LAB_RETRIES", "-1", "must be at least 0"),
            ("LAB_RETRIES", "11", "must be at most 10"),
            ("LAB_MAX_CONCURRENCY", "0", "must be above 0"),
            ("LAB_REMOTE", "far", "must be true or false"),
            ("LAB_LIVE_MODELS", "me", "must be admins, false or true"),
            ("LAB_DEPLOYMENTS", '{"m": "a", "m": "b"}', 'holds the key "m" twice'),
            ("LAB_DEPLOYMENTS", '{"m": ""}', '"m" must have a name'),
            ("LAB_FAMILIES", '{"m": 1}', '"m" must have a name'),
            ("LAB_FAMILIES", "m=gpt", "is not JSON"),
            ("LAB_CONTEXT", "8192", "must be a JSON object"),
            ("LAB_CONTEXT", '{"m": "8k"}', '"m" must have its context window'),
            ("LAB_CONTEXT", '{"m": 0}', "a whole number of tokens above 0"),
            ("LAB_PRICES", '{"m": [1]}', '"m" must have its input and output price'),
            ("LAB_PRICES", '{"m": [1, -1]}', "numbers of at least 0"),
            ("LAB_PRICES", '{"m": [true, 1]}', "numbers of at least 0"),
            ("LAB_PRICES", '{"m": ["1", "2"]}', "numbers of at least 0"),
            ("LAB_PRICES", '{"m": {"input": 1}}', "its input and output price"),
            ("LAB_PRICES", f'{{"m": [1, 1{"0" * 400}]}}', "its input and output price"),  # no float is so large
            ("LAB_PRICES", '{"m": {"input": 1, "input": 2, "output": 1}}', 'holds the key "input" twice'),
        ],
    )
    def test_provider_mistakes_name_the_full_variable(self, variable: str, value: str, told: str) -> None:
        (line,) = load_mistakes(AVAILABLE_PROVIDERS='{"lab": ["m"]}', **{variable: value})
        assert line.startswith(f"{variable}: ")
        assert told in line
        assert f", for example {variable}=" in line
        assert "hunter22" not in line

    def test_azure_reports_each_model_without_a_deployment(self) -> None:
        lines = load_mistakes(
            AVAILABLE_PROVIDERS='{"azure": ["m", "n", "o"]}',
            AZURE_KIND="azure_openai",
            AZURE_DEPLOYMENTS='{"n": "prod"}',
        )
        assert len(lines) == 2
        assert lines[0].startswith('AZURE_DEPLOYMENTS: has no deployment for the model "m"')
        assert '"o"' in lines[1]
