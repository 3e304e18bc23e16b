"""Words the capabilities that models lack, for operators, in English."""

from collections.abc import Iterable

from services.llm.request import Capability
from services.llm.routing.state.rules import ModelLimits

FOUND = {
    Capability.STREAMING: "stream",
    Capability.TOOLS: "tools",
    Capability.SYSTEM_ROLE: "system message",
}
"""The capabilities that a test tries, as they are listed."""

WITHOUT = {
    Capability.STREAMING: "a stream",
    Capability.TOOLS: "tools",
    Capability.TOOL_CHOICE: "a choice of the tool",
    Capability.SYSTEM_ROLE: "a system message (it goes into the first message of the user)",
    Capability.IMAGES: "images",
    Capability.STRUCTURED_OUTPUT: "structured output",
    Capability.WEB_SEARCH: "a search of its own",
}


def describe_limits(limits: ModelLimits) -> str:
    """Returns the learned refusals of a model: `m works without tools; its window is 4,096 tokens`."""
    facts: list[str] = []
    if limits.refused:
        facts.append(f"works without {_join(limits.refused)}")
    if limits.window is not None:
        facts.append(f"its window is {limits.window:,} tokens")
    elif limits.max_input is not None:
        facts.append(f"takes at most about {limits.max_input:,} tokens")
    return f"{limits.model} {'; '.join(facts)}"


def _join(refused: Iterable[str]) -> str:
    known = {each.value: words for each, words in WITHOUT.items()}
    # A newer version may have learned of a capability that this one does not know.
    words = sorted(known.get(name, name) for name in refused)
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
