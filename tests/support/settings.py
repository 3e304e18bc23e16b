"""Settings for tests: their own data directory, providers on loopback."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from core.config.providers import ProviderSettings
from core.config.settings import Settings, load_settings
from core.errors import ConfigurationError


def variables_for(data_dir: Path, providers: Mapping[str, str], **others: str) -> dict[str, str]:
    """Return variables that configure these providers by base URL, with the models m and n."""
    urls = {f"{name.upper()}_BASE_URL": url for name, url in providers.items()}
    listed = json.dumps({name: ["m", "n"] for name in providers})
    return {"DATA_DIR": str(data_dir), "AVAILABLE_PROVIDERS": listed, **urls, **others}


def settings_for(data_dir: Path, providers: Mapping[str, str], **others: str) -> Settings:
    """Return the settings from these variables alone."""
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
