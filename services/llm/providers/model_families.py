"""What a model's name tells about it: the family behind a deployment, and whether it sees images.

The model library assumes that every model takes images unless told otherwise, and knows no deployment names;
so the families are listed here.
"""

import re

from core.config.providers import ProviderKind, ProviderSettings

_SEES = re.compile(
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
_BLIND = re.compile(
    r"claude-(instant|[12]\b|v)|audio|realtime|transcribe|tts|gemma-?3.*\b(1b|270m)|gpt-3\.5|gpt-4(-\d{4})?$|o1-(mini|preview)|o3-mini"
)

_OWN_NAMES = frozenset({ProviderKind.OPENAI, ProviderKind.ANTHROPIC})
"""Kinds whose names are the maker's own, and whose later models all see."""


def model_family(provider: ProviderSettings, model_name: str) -> str:
    """The model that a name stands for: `<ID>_FAMILIES` by the name or by its Azure deployment, else the name."""
    deployment = deployment_name(provider, model_name)
    return provider.families.get(model_name) or provider.families.get(deployment) or model_name


def deployment_name(provider: ProviderSettings, model_name: str) -> str:
    """What the provider calls that model on the wire."""
    return provider.deployments.get(model_name, model_name)


def sees_images(provider: ProviderSettings, model_name: str) -> bool:
    """Whether the model looks at images.

    An unknown name counts as seeing where the maker itself offers it, and as blind everywhere else: an image
    that is sent to a model without eyes fails the whole request.
    """
    if provider.kind is ProviderKind.DEMO:
        return False
    family = model_family(provider, model_name).lower().rpartition("/")[2]
    if _BLIND.search(family):
        return False
    return _SEES.match(family) is not None or provider.kind in _OWN_NAMES
