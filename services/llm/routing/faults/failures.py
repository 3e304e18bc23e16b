"""Reads a failure of a candidate: its outcome, and the server's words as far as operators and users may see them."""

from collections.abc import Sequence
from dataclasses import replace

from pydantic import SecretStr
from pydantic_ai.messages import ModelMessage

from core.config.providers import ProviderSettings
from core.errors import ContentRefused
from services.llm.routing.faults.outcomes import Outcome, classify
from services.llm.routing.faults.reasons import provider_message
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.faults.refusals import KnownWords
from services.llm.server_words import find_server_words, mask_quotes, mask_secrets


def read_failure(
    error: Exception, cooldown_s: float, known: KnownWords, key: SecretStr | None, messages: Sequence[ModelMessage]
) -> Outcome:
    """Classifies an error, and adds the server's words except where they may quote the prompt.

    Args:
        error: raised by the candidate's model.
        cooldown_s: usual cooldown after a failure.
        known: the words by which refusals are recognised.
        key: the provider's key, which no word may show.
        messages: the sent messages.
    """
    outcome = classify(error, cooldown_s, known)
    # Words about the key, the account or the model are no quote, at any status.
    is_about_account = outcome.fault in {Fault.MISCONFIGURED, Fault.MODEL_GONE, Fault.LOADING}
    # Operators need the words of an unclear refusal where another provider's answer proves this one's fault; that of a
    # capability becomes unclear where the request has none to leave out.
    is_wanted = is_about_account or outcome.fault in {Fault.UNCLEAR, Fault.CAPABILITY}
    words = find_server_words(error, key, is_own_prompt=is_wanted)
    if words is not None:
        # Any error may echo the request.
        words = mask_quotes(words, messages)
    # The reason holds a code of the server's, and some put the key there.
    reason = mask_secrets(outcome.reason, [key.get_secret_value()]) if key is not None else outcome.reason
    return replace(outcome, reason=reason, words=words)


def to_surfaced(error: Exception, outcome: Outcome, provider: ProviderSettings) -> Exception:
    """Returns the error that ends a request, after which no other candidate is asked."""
    if outcome.fault is not Fault.REFUSED:
        return error
    known = [provider.api_key.get_secret_value()] if provider.api_key is not None else []
    refusal = ContentRefused(provider.id, mask_secrets(provider_message(error) or "", known) or outcome.reason)
    refusal.__cause__ = error
    return refusal
