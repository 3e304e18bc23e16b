"""Words the test of a provider for operators, in English."""

from services.llm.models.trial import Capability, TrialResult


def describe_trial(trial: TrialResult) -> str:
    """Return the model, its time and each capability: `m answered in 40 ms: stream, no tools, system message`."""
    found = [f"no {each}" if each in trial.refused else str(each) for each in Capability]
    return f"{trial.model} answered in {trial.took_s * 1000:.0f} ms: {', '.join(found)}"


def describe_refusals(provider_id: str, trial: TrialResult) -> list[str]:
    """Return a line for each feature that the model does without."""
    return [
        f"{provider_id}{': ' if provider_id else ''}{trial.model} is asked without {_WITHOUT[capability]}: {refusal}"
        for capability, refusal in sorted(trial.refused.items())
    ]


_WITHOUT = {
    Capability.STREAM: "a stream",
    Capability.TOOLS: "tools",
    Capability.SYSTEM: "a system message (it goes into the first message of the user)",
}
