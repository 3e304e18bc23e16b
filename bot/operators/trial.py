"""Words the test of a provider for operators, in English."""

from bot.operators.capabilities import FOUND, WITHOUT
from services.llm.models.trial import TESTED, TrialResult


def describe_trial(trial: TrialResult) -> str:
    """Returns the model, its time and each capability: `m answered in 40 ms: stream, no tools, system message`."""
    found = [f"no {FOUND[each]}" if each in trial.refused else FOUND[each] for each in TESTED]
    return f"{trial.model} answered in {trial.took_s * 1000:.0f} ms: {', '.join(found)}"


def describe_refusals(provider_id: str, trial: TrialResult) -> list[str]:
    """Returns a line for each capability that the model does without."""
    return [
        f"{provider_id}{': ' if provider_id else ''}{trial.model} is asked without {WITHOUT[capability]}: {refusal}"
        for capability, refusal in sorted(trial.refused.items())
    ]
