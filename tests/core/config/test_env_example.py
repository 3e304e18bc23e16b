"""`.env.example` against the settings: every variable, every default, in both directions."""

import re
from itertools import pairwise
from pathlib import Path

from dotenv import dotenv_values

from core.config.providers import DEFAULT_BASE_URLS, ProviderKind, ProviderVariables
from core.config.settings import Settings, load_settings
from core.config.variables import CommonVariables

EXAMPLE = Path(__file__).parents[3] / ".env.example"
VARIABLE = re.compile(r"^(#?)([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
PROVIDERS = ("OPENAI_", "OLLAMA_", "AZURE_")


def variables() -> dict[str, str]:
    """The commented variables of the file and their values."""
    found = VARIABLE.findall(EXAMPLE.read_text(encoding="utf-8"))
    names = [name for _, name, _ in found]
    assert len(names) == len(set(names)), "a variable is listed twice"
    return {name: value for _, name, value in found}


def uncommented(tmp_path: Path, **changes: str) -> Settings:
    """The settings with every commented variable of the example in force."""
    env_file = tmp_path / ".env"
    env_file.write_text(re.sub(r"(?m)^#(?=[A-Z][A-Z0-9_]*=)", "", EXAMPLE.read_text(encoding="utf-8")))
    return load_settings(env_file, changes)


def test_env_example_is_commented_out() -> None:
    """A copy of the file as .env changes nothing: LOG_LEVEL=info, for one, would turn the console's log on."""
    assert [name for mark, name, _ in VARIABLE.findall(EXAMPLE.read_text(encoding="utf-8")) if not mark] == []
    assert load_settings(EXAMPLE, {}) == load_settings(None, {})
    assert not dotenv_values(EXAMPLE)


def test_env_example_lists_every_common_variable() -> None:
    """A new setting cannot be forgotten, nor a removed one stay."""
    assert {name for name in variables() if not name.startswith(PROVIDERS)} == set(CommonVariables.variable_names())


def test_env_example_lists_every_provider_variable_for_openai() -> None:
    openai = {name for name in variables() if name.startswith("OPENAI_")}
    assert openai == set(ProviderVariables.variable_names("OPENAI_"))


def test_env_example_lists_no_unknown_provider_variable() -> None:
    known = {name for prefix in PROVIDERS for name in ProviderVariables.variable_names(prefix)}
    assert {name for name in variables() if name.startswith(PROVIDERS)} <= known


def test_env_example_explains_every_variable() -> None:
    """A comment stands right above each; the Azure block is one example."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for before, line in pairwise(lines):
        match = VARIABLE.match(line)
        if match and not match[2].startswith("AZURE_"):
            assert re.match(r"# \S.{10,}", before), f"{match[2]} has no line of meaning"


def effective(settings: Settings) -> Settings:
    """Return the settings without the variables that they were read from."""
    return settings.model_copy(update={"variables": {}})


def test_env_example_values_are_the_defaults(tmp_path: Path) -> None:
    """Uncommented, every common variable has its default, also as python-dotenv reads the file."""
    env_file = tmp_path / ".env"
    lines = (f"{name}={value}" for name, value in variables().items() if not name.startswith(PROVIDERS))
    env_file.write_text("\n".join(lines))
    assert effective(load_settings(env_file, {})) == effective(load_settings(None, {}))
    values = {name: value for name, value in dotenv_values(env_file).items() if value}
    assert effective(load_settings(None, values)) == effective(load_settings(None, {}))


def test_env_example_provider_values_are_the_defaults(tmp_path: Path) -> None:
    """Removing every # changes nothing for the default providers; the Azure block warns that it needs its entry."""
    ours = uncommented(tmp_path)
    plain = load_settings(None, {})
    assert ours.providers == plain.providers
    assert tuple(line for line in ours.warnings if not line.startswith("AZURE_")) == plain.warnings


def test_env_example_azure_block_is_complete(tmp_path: Path) -> None:
    """The Azure block, once uncommented, configures a usable provider."""
    settings = uncommented(tmp_path, AVAILABLE_PROVIDERS='{"azure": ["gpt-5-mini"]}')
    (azure,) = settings.providers
    assert azure.kind is ProviderKind.AZURE_OPENAI
    assert azure.missing is None
    assert azure.deployments == {"gpt-5-mini": "chat-prod"}


def test_env_example_lists_every_kind() -> None:
    """The choice of kinds is written out."""
    text = EXAMPLE.read_text(encoding="utf-8")
    assert all(kind in text for kind in ProviderKind)
    assert set(DEFAULT_BASE_URLS) <= set(ProviderKind)
