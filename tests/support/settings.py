"""Settings for a surface under test: a data directory of its own, and providers on loopback."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from core.config.providers import ProviderSettings
from core.config.settings import Settings, load_settings
from core.errors import ConfigurationError


def variables_for(data_dir: Path, providers: Mapping[str, str], **others: str) -> dict[str, str]:
    """The environment that names these providers, each by its base URL, with the models m and n."""
    urls = {f"{name.upper()}_BASE_URL": url for name, url in providers.items()}
    listed = json.dumps({name: ["m", "n"] for name in providers})
    return {"DATA_DIR": str(data_dir), "AVAILABLE_PROVIDERS": listed, **urls, **others}


def settings_for(data_dir: Path, providers: Mapping[str, str], **others: str) -> Settings:
    """The settings of that environment, and of nothing around the test."""
    return load_settings(None, variables_for(data_dir, providers, **others))


def load(**environ: str) -> Settings:
    """Return the settings from these variables alone."""
    return load_settings(env_file=None, environ=environ)


def load_provider(provider_id: str, **environ: str) -> ProviderSettings:
    """Return the only provider, with one model, from these variables."""
    (found,) = load(AVAILABLE_PROVIDERS=json.dumps({provider_id: ["m"]}), **environ).providers
    return found


def load_mistakes(**environ: str) -> tuple[str, ...]:
    """Return the mistakes in these variables."""
    with pytest.raises(ConfigurationError) as caught:
        load(**environ)
    return caught.value.mistakes
