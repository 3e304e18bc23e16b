"""One plain request to one candidate, under its deadline."""

import asyncio

from pydantic_ai.exceptions import ModelRequestTimeout
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from services.llm.models.streams import emptiness, failed_end, is_answer
from services.llm.request import Candidate
from services.llm.routing.outcomes import AnswerGivenUp, EmptyAnswer


async def request_answer(
    candidate: Candidate,
    model: Model,
    messages: list[ModelMessage],
    settings: ModelSettings | None,
    parameters: ModelRequestParameters,
) -> ModelResponse:
    """Ask a candidate for a whole answer.

    Raises:
        ModelRequestTimeout: nothing within the candidate's timeout.
    """
    timeout_s = candidate.provider.timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            return await model.request(messages, settings, parameters)
    except TimeoutError as error:
        raise ModelRequestTimeout(candidate.model, timeout_s) from error


def require_answer(response: ModelResponse) -> None:
    """Make sure that there is something in an answer, unless its filter stopped it, and that it was not given up.

    Raises:
        EmptyAnswer: there is nothing, or only thinking.
        AnswerGivenUp: its provider says that it did not finish it.
    """
    if response.finish_reason != "content_filter" and not any(map(is_answer, response.parts)):
        raise EmptyAnswer(emptiness(response.parts), response.usage)
    failed = failed_end(response.finish_reason, response.provider_details)
    if failed is not None and not response.tool_calls:
        # Where a tool was called in vain (so Groq ends one), the agent lets the model try again.
        raise AnswerGivenUp(failed, response.usage)
