"""Words the capabilities that models lack, and the test of a provider, for operators."""

from bot.operators.formatting import Wording
from services.llm.models.trial import TESTED, TrialResult
from services.llm.request import Capability
from services.llm.routing.state.rules import ModelLimits

_KNOWN = frozenset(each.value for each in Capability)


def describe_limits(limits: ModelLimits, words: Wording) -> str:
    """Returns the learned refusals of a model: `m works without tools; its window is 4,096 tokens`."""
    facts: list[str] = []
    if limits.refused:
        # A newer version may have learned of a capability that this one does not know.
        known = sorted(words.get(f"without-{name}") if name in _KNOWN else name for name in limits.refused)
        facts.append(words.get("operator-works-without", refused=words.join(known)))
    if limits.window is not None:
        facts.append(words.get("operator-window", tokens=limits.window))
    elif limits.max_input is not None:
        facts.append(words.get("operator-max-input", tokens=limits.max_input))
    return f"{limits.model} {'; '.join(facts)}"


def describe_trial(trial: TrialResult, words: Wording) -> str:
    """Returns the model, its time and each capability: `m answered in 40 ms: stream, no tools, system message`."""
    found = [words.get(f"tested-{'no-' if each in trial.refused else ''}{each.value}") for each in TESTED]
    time = f"{trial.took_s * 1000:.0f}"
    return words.get("operator-trial", model=trial.model, time=time, found=", ".join(found))


def describe_refusals(provider_id: str, trial: TrialResult, words: Wording) -> list[str]:
    """Returns a line for each capability that the model does without."""
    prefix = f"{provider_id}: " if provider_id else ""
    return [
        prefix
        + words.get(
            "operator-asked-without",
            model=trial.model,
            capability=words.get(f"without-{capability.value}"),
            refusal=str(refusal),
        )
        for capability, refusal in sorted(trial.refused.items())
    ]
