"""Words notices to operators."""

from bot.operators.formatting import Wording
from core.i18n import Texts
from services.admin.notices import Event, InboxFailed, WorkGivenUp
from services.llm.routing.events import AnswersAgain, LeaderChanged, Misconfigured, NoProviderAnswers


def format_notice(event: Event, words: Wording | None = None) -> str:
    """Returns the text of a notice, in English unless another language is given."""
    get = (words or Wording(Texts())).get
    match event:
        case Misconfigured(provider, reason, said):
            quoted = get("notice-it-said", words=said) if said else ""
            parts = [get("notice-misconfigured", provider=provider, reason=reason), quoted]
            return " ".join([*filter(None, parts), get("notice-misconfigured-help", provider=provider)])
        case WorkGivenUp(reason):
            return get("notice-given-up", reason=reason)
        case InboxFailed(reason):
            return get("notice-inbox-failed", reason=reason)
        case NoProviderAnswers(attempts):
            # A provider may have been asked more than once.
            reasons = dict.fromkeys(f"{attempt.provider}: {attempt.reason}" for attempt in attempts)
            return get("notice-no-provider", reasons="; ".join(reasons))
        case AnswersAgain(provider):
            return get("notice-again", provider=provider)
        case LeaderChanged(before, after, None):
            return get("notice-leader-back", before=before, after=after)
        case LeaderChanged(before, after, reason):
            return get("notice-leader-failed", before=before, after=after, reason=reason or "")
