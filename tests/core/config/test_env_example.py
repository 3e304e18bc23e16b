"""`.env.example` against the settings: every variable, every default, in both directions."""

import re
from itertools import pairwise
from pathlib import Path

from dotenv import dotenv_values

from core.config.providers import DEFAULT_BASE_URLS, ProviderKind, ProviderVariables
from core.config.settings import CommonVariables, Settings, load_settings

EXAMPLE = Path(__file__).parents[3] / ".env.example"
VARIABLE = re.compile(r"^(#?)([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


def variables(*, commented: bool) -> dict[str, str]:
    """The variables of the file and their values: those in force, or those that are commented out."""
    found = VARIABLE.findall(EXAMPLE.read_text(encoding="utf-8"))
    names = [name for _, name, _ in found]
    assert len(names) == len(set(names)), "a variable is there twice"
    return {name: value for mark, name, value in found if bool(mark) == commented}


def uncommented(tmp_path: Path, **changes: str) -> Settings:
    """The settings with every commented variable of the example in force."""
    env_file = tmp_path / ".env"
    env_file.write_text(re.sub(r"(?m)^#(?=[A-Z][A-Z0-9_]*=)", "", EXAMPLE.read_text(encoding="utf-8")))
    return load_settings(env_file, changes)


def test_every_common_variable_is_there_and_no_other() -> None:
    """A new setting cannot be forgotten here, nor a removed one stay."""
    assert set(variables(commented=False)) == set(CommonVariables.names())


def test_every_provider_variable_is_there_for_openai_and_no_other() -> None:
    """The same for the variables that every provider has."""
    openai = {name for name in variables(commented=True) if name.startswith("OPENAI_")}
    assert openai == set(ProviderVariables.names("OPENAI_"))


def test_the_other_examples_name_only_variables_that_exist() -> None:
    """What Ollama and Azure are shown with is real."""
    known = {name for prefix in ("OPENAI_", "OLLAMA_", "AZURE_") for name in ProviderVariables.names(prefix)}
    assert set(variables(commented=True)) <= known


def test_every_variable_of_the_common_and_the_openai_part_has_its_line_of_meaning() -> None:
    """A comment stands right above each; the Azure block is one example."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for before, line in pairwise(lines):
        match = VARIABLE.match(line)
        if match and not match[2].startswith("AZURE_"):
            assert re.match(r"# \S.{10,}", before), f"{match[2]} has no line of meaning"


def test_taken_as_it_is_the_file_gives_the_defaults() -> None:
    """Also through python-dotenv itself, as pydantic-settings or Docker Compose would read it."""
    assert load_settings(EXAMPLE, {}) == load_settings(None, {})
    values = {name: value for name, value in dotenv_values(EXAMPLE).items() if value}
    assert load_settings(None, values) == load_settings(None, {})


def test_the_commented_defaults_of_openai_and_ollama_are_the_defaults(tmp_path: Path) -> None:
    """Removing every # changes nothing for the default providers."""
    ours = uncommented(tmp_path)
    plain = load_settings(None, {})
    assert ours.providers == plain.providers
    assert ours.warnings == plain.warnings


def test_the_azure_example_is_complete(tmp_path: Path) -> None:
    """Whoever copies the Azure block has a provider that can be used."""
    settings = uncommented(tmp_path, AVAILABLE_PROVIDERS='{"azure": ["gpt-5-mini"]}')
    (azure,) = settings.providers
    assert azure.kind is ProviderKind.AZURE_OPENAI
    assert azure.missing is None
    assert azure.deployments == {"gpt-5-mini": "chat-prod"}


def test_the_file_lists_every_kind() -> None:
    """The choice of kinds is written out."""
    text = EXAMPLE.read_text(encoding="utf-8")
    assert all(kind in text for kind in ProviderKind)
    assert set(DEFAULT_BASE_URLS) <= set(ProviderKind)
