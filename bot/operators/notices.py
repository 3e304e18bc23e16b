"""Words notices to operators, in English."""

from services.admin.notices import Event, InboxFailed, WorkGivenUp
from services.llm.routing.events import AnswersAgain, LeaderChanged, Misconfigured, NobodyAnswers


def format_notice(event: Event) -> str:
    """Returns the text of a notice."""
    match event:
        case Misconfigured(provider, reason, words):
            said = f' It said: "{words}".' if words else ""
            return (
                f"{provider} does not accept its key, account or model: {reason}.{said} "
                "It cools down for 30 minutes at a time. "
                f"After a correction (new settings need a restart), /provider reset {provider} brings it back."
            )
        case WorkGivenUp(reason):
            return f"A message could not be handled and is among the dead letters: {reason}. /dead shows them."
        case InboxFailed(reason):
            return f"I have to stop: {reason}. Messages are kept, and answered once this is mended and I run again."
        case NobodyAnswers(attempts):
            # A provider may have been asked more than once.
            reasons = dict.fromkeys(f"{attempt.provider}: {attempt.reason}" for attempt in attempts)
            return f"No AI provider answers. {'; '.join(reasons)}. /provider shows more."
        case AnswersAgain(provider):
            return f"{provider} answers again; requests are served."
        case LeaderChanged(before, after, None):
            return f"{after} answers again, in place of {before}."
        case LeaderChanged(before, after, reason):
            return f"{before} failed ({reason}). {after} answers now. /provider shows more."
