"""Derives facts from a model's name: the family behind a deployment, and support for images.

The model library assumes image support unless configured otherwise, and does not know deployment names, so the families
are listed here.
"""

import re

from core.config.providers import ProviderKind, ProviderSettings

_WITH_VISION = re.compile(
    r"gpt-4o|gpt-4\.[15]|gpt-4-(turbo|vision)|gpt-[5-9]|o1(?!-(mini|preview))|o3(?!-mini)|o4|computer-use"
    r"|claude-"
    r"|gemini-(?!1\.0-pro$)|gemma-?3(?!n)|gemma-?4|paligemma"
    r"|grok-(4|2-vision|vision)"
    r"|llama-?3\.2.*vision|llama-?4|llava|bakllava|moondream"
    r"|qwen[\d.]*-?vl|qvq"
    r"|pixtral|mistral-small-?(3\.[1-9]|latest|25|26)|mistral-medium(-?3|-latest|-25|-26)|mistral-large-?(3|4|latest|2512|26)"
    r"|ministral-(3(?!b)|(3|8|14)b-(2512|26|latest))|magistral-(small|medium)-(2509|latest)"
    r"|deepseek-vl|minicpm-v|internvl|granite.*vision|phi.*(vision|multimodal)|glm-4(\.\d)?v|kimi-(vl|k2\.5)|nova-(lite|pro|premier)"
)
_WITHOUT_VISION = re.compile(
    r"claude-(instant|[12]\b|v)|audio|realtime|transcribe|tts|gemma-?3.*\b(1b|270m)|gpt-3\.5|gpt-4(-\d{4})?$|o1-(mini|preview)|o3-mini"
)

_FIRST_PARTY = frozenset({ProviderKind.OPENAI, ProviderKind.ANTHROPIC})
"""Kinds that serve their own models only, all newer ones of which accept images."""


def model_family(provider: ProviderSettings, model_name: str) -> str:
    """Returns the actual model: `<ID>_FAMILIES` by the name or by its Azure deployment, else the name."""
    deployment = deployment_name(provider, model_name)
    return provider.families.get(model_name) or provider.families.get(deployment) or model_name


def deployment_name(provider: ProviderSettings, model_name: str) -> str:
    """Returns the name of the model in requests to the provider."""
    return provider.deployments.get(model_name, model_name)


def accepts_images(provider: ProviderSettings, model_name: str) -> bool:
    """Returns whether the model accepts images.

    An unknown name counts as accepting them on a first-party service only, since an image makes the whole request fail
    on a model without vision.
    """
    if provider.kind is ProviderKind.DEMO:
        return False
    family = model_family(provider, model_name).lower().rpartition("/")[2]
    if _WITHOUT_VISION.search(family):
        return False
    return _WITH_VISION.match(family) is not None or provider.kind in _FIRST_PARTY
