"""The words by which servers refuse, collected from their documentation, their source and public reports.

They are a shortcut only: a refusal without known words is settled by another candidate's answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.llm.request import Capability


class Fault(StrEnum):
    """The kind of fault behind a failed request."""

    HICCUP = "hiccup"
    """A transient fault of the provider: the same one is retried once."""
    DOWN = "down"
    """The provider is unreachable, silent or overloaded."""
    LOADING = "loading"
    """The server loads its model and will answer soon."""
    RATE_LIMITED = "rate_limited"
    MISCONFIGURED = "misconfigured"
    """The key, the account or the address is wrong, or the model cannot be built: an operator has to act."""
    MODEL_GONE = "model_gone"
    """The server does not have this model, or has not loaded it; its other models may answer."""
    UNREADABLE = "unreadable"
    """A response without an answer: empty, cut, an error page, only thinking."""
    CONTEXT_WINDOW = "context_window"
    CAPABILITY = "capability"
    """The model refuses a part of the request that can be left out."""
    UNCLEAR = "unclear"
    """A refusal that may be the request's fault or the provider's: another candidate's answer decides."""
    REFUSED = "refused"
    """The provider's content filter."""
    BUSY = "busy"
    """Our own limit for this provider is reached."""
    OURS = "ours"
    """A bug of ours: it surfaces, and provider health is unchanged."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of a refusal: its fault, and the capability that it refuses."""

    fault: Fault
    capability: Capability | None = None


Words = tuple[tuple[Meaning, tuple[str, ...]], ...]
"""Regular expressions over the beginning of a message in lower case; the first match counts."""

_OPERATOR: Final = Meaning(Fault.MISCONFIGURED)
_GONE: Final = Meaning(Fault.MODEL_GONE)
_TOO_LONG: Final = Meaning(Fault.CONTEXT_WINDOW)
_FILTERED: Final = Meaning(Fault.REFUSED)
_LOADING: Final = Meaning(Fault.LOADING)
_TOOLS: Final = Meaning(Fault.CAPABILITY, Capability.TOOLS)
_WEB_SEARCH: Final = Meaning(Fault.CAPABILITY, Capability.WEB_SEARCH)
_TOOL_CHOICE: Final = Meaning(Fault.CAPABILITY, Capability.TOOL_CHOICE)
_SYSTEM: Final = Meaning(Fault.CAPABILITY, Capability.SYSTEM_ROLE)
_IMAGES: Final = Meaning(Fault.CAPABILITY, Capability.IMAGES)
_STRUCTURE: Final = Meaning(Fault.CAPABILITY, Capability.STRUCTURED_OUTPUT)
_SETTINGS: Final = Meaning(Fault.CAPABILITY, Capability.SETTINGS)
_STREAMING: Final = Meaning(Fault.CAPABILITY, Capability.STREAMING)

CODES: Final[Mapping[str, Meaning]] = {
    "content_filter": _FILTERED,
    "content_policy_violation": _FILTERED,
    "moderation_blocked": _FILTERED,
    "ResponsibleAIPolicyViolation": _FILTERED,
    # Alibaba, and Zhipu's number for it.
    "data_inspection_failed": _FILTERED,
    "DataInspectionFailed": _FILTERED,
    "1301": _FILTERED,
    "invalid_prompt": _FILTERED,
    # Gateways of the one-api family.
    "sensitive_words_detected": _FILTERED,
    "InputTextSensitiveContentDetected": _FILTERED,
    # Groq, with a 400: a removed model, terms that are not accepted, a blocked account.
    "model_decommissioned": _GONE,
    "model_terms_required": _OPERATOR,
    "organization_restricted": _OPERATOR,
    # Mistral, with a 400.
    "invalid_model": _GONE,
    "model_not_found": _GONE,
    # Azure and Alibaba.
    "DeploymentNotFound": _GONE,
    # GitHub and Together, with a 400.
    "unavailable_model": _GONE,
    "model_not_available": _GONE,
    "ModelNotFound": _GONE,
    "Arrearage": _OPERATOR,
    "InvalidApiKey": _OPERATOR,
    "invalid_api_key": _OPERATOR,
    "unsupported_country_region_territory": _OPERATOR,
    # OpenAI, with a 429 or, of pictures, a 400.
    "insufficient_quota": _OPERATOR,
    # Moonshot, with a 429.
    "exceeded_current_quota_error": _OPERATOR,
    "billing_hard_limit_reached": _OPERATOR,
    "billing_not_active": _OPERATOR,
    # Zhipu: no such model; a key that is missing, wrong or expired; an account that is locked or in arrears.
    "1211": _GONE,
    "1000": _OPERATOR,
    "1001": _OPERATOR,
    "1002": _OPERATOR,
    "1003": _OPERATOR,
    "1004": _OPERATOR,
    "1110": _OPERATOR,
    "1112": _OPERATOR,
    "1113": _OPERATOR,
    "1261": _TOO_LONG,
    "tokens_limit_reached": _TOO_LONG,
    # Google, with a 400: an account without billing or in an unsupported country.
    "FAILED_PRECONDITION": _OPERATOR,
    # Gateways of the one-api family, with a 403 or a 503, and LiteLLM's for keys and teams.
    "insufficient_user_quota": _OPERATOR,
    "key_model_access_denied": _OPERATOR,
    "team_model_access_denied": _OPERATOR,
    "AllocationQuota.FreeTierOnly": _OPERATOR,
    # Fireworks and Hugging Face, while a server is started for the model.
    "DEPLOYMENT_SCALING_UP": _LOADING,
    # LiteLLM's proxy, with a 400 or a 429.
    "budget_exceeded": _OPERATOR,
    # llama.cpp, with a 400 or a 500.
    "exceed_context_size_error": _TOO_LONG,
    "context_length_exceeded": _TOO_LONG,
    "model_max_prompt_tokens_exceeded": _TOO_LONG,
    "request_too_large": _TOO_LONG,
    "string_above_max_length": _TOO_LONG,
}
"""Meanings of the `code` or `type` of an error, where the HTTP status alone is ambiguous."""

ALWAYS: Final[Words] = (
    # With any status: some servers send these with a 429 or a 500.
    (_FILTERED, (r"litellm\.contentpolicyviolationerror",)),
    (
        _OPERATOR,
        (
            r"budget has been exceeded|exhausted (its|your|their|the) budget",
            # With a 429 too: xAI, Cohere, Cloudflare, Volcengine.
            r"monthly spending limit|used all available credits|calls / month|daily free allocation",
            r"service has been paused",
        ),
    ),
    (
        # The limit of the answer is above the model's own; not a conversation beyond the context window.
        _SETTINGS,
        (
            (
                r"^(?!.*(context (length|window)|max_new_tokens|input))"
                r".*\bmax(imum)?[_ ]((completion|output)[_ ])?tokens\b.{0,60}?"
                r"(too (large|high|big)|must be (less|at most|between|in|<)|less than or equal|should be|> \d)"
            ),
            r"(invalid|range of|range for)\b[^.]{0,30}\bmax_(completion_|output_)?tokens",
            r"maximum (allowed )?number of output tokens",
        ),
    ),
    (
        _TOO_LONG,
        (
            # LiteLLM's proxy, as a prefix to the message of the provider behind it.
            r"litellm\.contextwindowexceedederror",
            # Groq with a 413, OpenAI with a 429: above the account's tokens per minute. Waiting does not help.
            r"request too large for (model|gpt|o\d)",
            r"maximum context length|maximum prompt length|exceeded max context|prompt exceeds max",
            r"context (length|window|size) (has been |was |is )?(exceeded|only|of only|too small)",
            r"exceed\w* (the |its |your )?(available |maximum |max |model'?s? )*(context|sequence length)",
            r"(prompt|input|messages?) (is |are )?too (long|large)",
            r"too large for model with|trying to keep the first|range of input length",
            r"`inputs` tokens|`inputs` must have less",
            r"reduce the length of|longer than the (maximum|model)|(greater|larger|longer) than the context",
            r"context shift is disabled|enable context shift",
            r"超长|超过最大长度|超过最大",
        ),
    ),
    # A model that will not be loaded is not waited for.
    (_GONE, (r"(failed|unable|could not|error) (to )?load(ing)? (the )?model|\bload\w* was (stopped|aborted|cancel)",)),
    (
        _LOADING,
        (
            r"loading (the )?model|model (\S+ )?is (currently |still |being )*loading|still loading|warming up",
            r"(server|service|model|engine)( \S+)?( is)?( currently| still)? (starting|initiali[sz]ing|loading)\b",
            r"(model|engine|server|service)( \S+)? (is )?not (yet )?ready|(?<!overloaded or )not ready yet|^loading\b",
            r"waiting for (the )?(model|llama|server|runner|engine)\b.{0,20}\b(load|start)",
            r"cold start|scaling up|scaled? (up from|to) zero|being (loaded|started)|waking up",
            r"no instances? available \(yet\)|модель (ещё |еще )?(загружается|запускается)",
        ),
    ),
    (
        _TOOLS,
        (
            # llama.cpp sends its refusals with a 500.
            r"tools? param requires --jinja|unsupported param: tools",
            r"--enable-auto-tool-choice|--tool-call-parser",
            r"support(s|ed|ing)? (the )?(native )?[`'\"]?(tool|function)s?\b(?![`'\"]?[_ ]choice)",
            r"cannot use tools|\b(tools|functions)[`'\"]?:? extra",
        ),
    ),
    (
        _IMAGES,
        (
            r"image input is not supported|mmproj|at most 0 image|not a multimodal model",
            r"missing data required for image|(not|n't) support images?\b",
        ),
    ),
)
OF_ONE_MODEL: Final = (
    # LiteLLM's proxy, in each of its versions.
    r"\bmodel group\b|\blitellm\.\w*(error|timeout)\b|no deployments available for selected model",
    # OpenRouter.
    r"\bprovider returned error\b|temporarily rate-limited upstream",
    # Gateways of the one-api family.
    r"\bbad[_ ]response[_ ]status[_ ]code\b|\bupstream[_ ]error\b|^openai_error\b|上游",
    # Portkey.
    r"^(?:azure-)?(?:openai|anthropic|google|bedrock|groq|mistral(?:-ai)?|cohere|together-ai|ollama) error:",
    # Servers that run each model in a process of its own: Ollama, llama-swap, LocalAI, LM Studio.
    r"\brunner process\b|\brequires more system memory\b|\bupstream command exited\b|\bunable to start process\b",
    r"\brpc error: code = |\bgrpc service not ready\b|\bbackend (?:process|worker|failed|crashed|exited)\b",
)
"""Refusals and failures of a proxy, or of a server of many models, that are about the one model that was asked."""
FOR_REFUSALS: Final[Words] = (
    # Not with a 429: rate limits speak of quotas, plans and tokens too.
    (
        _TOO_LONG,
        (
            # Of a stream too, in which a rate limit has no status.
            r"too many (input |prompt )?tokens(?! (per|processed)\b|, please wait)",
            r"input token count|number of tokens allowed",
            # A length that is compared with its limit: each server has words of its own for it.
            (
                r"(input|prompt|context|sequence|messages?|tokens?)(?![a-z]).{0,60}\b"
                r"(exceed\w*|(longer|larger|greater|more) than|must be (less|fewer|shorter|smaller) than)\b"
                r".{0,60}(len(gth)?|tokens?|context|window)(?![a-z])"
            ),
            r"context (length|window|size)\b.{0,60}\bexceeded|too long to fit|input token length",
            r"превы\w+[^.]{0,40}\b(длин|контекст|окн)|слишком длинн",
            r"(exceed\w*|greater than) max_(seq|model)_len|token limit: \d",
            r"context (window |length )?(is )?(full|exceeds)|context window limit",
            r"(input|prompt)\b.{0,60}\b(tokens?|length)\b.{0,40}\b((cannot|must not|should not) exceed|no more than)\b",
            r"(body|request|payload) too large\b.{0,60}\btokens\b",
            # Recordings, and texts to speak.
            r"audio duration\b.{0,40}\blonger than|maximum (content|file) size( limit)?\b.{0,20}\bexceeded",
            r"'body', 'input'\).{0,20}string should have at most",
            r"(prompt|input|message|total)s?( token)?s?( count)?\b.{0,40}\bexceed\w* (the |its |a )?(token )?limit",
            r"total tokens\b.{0,40}\bexceed|exceed\w* (the |model )*token limit",
        ),
    ),
    (
        _WEB_SEARCH,
        (
            r"web[_ -]?search\w*[`'\"]?[^.]{0,60}\b(not|un(supported|available)|disabled)\b",
            r"\b(not|un(supported|available|known|recognized)|disabled)\b[^.]{0,60}\W(web[_ -]?|google_)search",
        ),
    ),
    (
        _TOOL_CHOICE,
        (
            r"tool[_ ]choice\W+([^ .]+ ){0,3}(is |are )?(not|unsupported|only) ",
            r"support (this |the |a )?[`'\"]?tool[_ ]choice|tool[_ ]choice forces",
            r"(invalid|unsupported|unknown) (value |parameter )?(for |in )?:? ?[`'\"]?tool[_ ]choice",
        ),
    ),
    (
        _TOOLS,
        (
            (
                r"(tool|function)s?[`'\"]?[ _-]?(use|usage|calling|calls)?[`'\"]? ((is|are|currently) )*"
                r"(not\b|un(supported|available))"
            ),
            r"(unsupported|unrecognized|unknown|unexpected|extra)\b[^.]{0,60}\b(tools|functions)\b",
            r"tool_?config\b[^.]{0,30}\bnot supported",
        ),
    ),
    (
        _SYSTEM,
        (
            r"system role|role[`'\" :]+system|developer instruction|roles must alternate",
            r"only user( and|,)[^.]{0,30} roles",
            r"system (message|prompt|instruction)s?\b[^.]{0,30}\b(not|unsupported|must be (at the beginning|first))\b",
            r"role\b[^.]{0,40}support [`'\"]?(system|developer)|not support (a |the )?(system|developer) ",
        ),
    ),
    (
        _IMAGES,
        (
            # Not of one picture that cannot be read: the model sees others.
            (
                r"^(?!.*(valid image|image formats?\b|not (a )?valid|process|decod|corrupt|download|fetch|represent))"
                r".*\b(image|vision|picture|multi-?modal)\w*\b[^.]{0,40}\b(not|unsupported|only supported|disabled)\b"
            ),
            r"\bnot a vlm\b|text-only prompts",
            r"(not support|that support|unknown variant)\b[^.]{0,20}[`'\" ](image|vision|multi-?modal)",
            r"\bcontent\b[^.]{0,20}must be a string",
        ),
    ),
    (
        _STRUCTURE,
        (
            r"(response[_ ]format|json[_ ](schema|mode|object)|structured output)\w*\b[^.]{0,50}\b(not|must be)\b",
            r"(response[_ ]format|json[_ ]schema|structured output)\w*\b[^.]{0,50}\b(unavailable|invalid)\b",
            r"response_format\.type",
            r"(not support|unsupported)\b[^.]{0,30}\b(response[_ ]format|json[_ ](schema|mode)|structured output)",
        ),
    ),
    (
        _SETTINGS,
        (
            (
                r"(unsupported|unrecognized|unknown|unexpected|extra|invalid|not support\w*)\b[^.]{0,60}"
                r"\b(max_(completion_|output_)?tokens|stream_options|temperature|top_p|include_usage)\b"
            ),
            (
                r"\b(max_(completion_|output_)?tokens|stream_options|temperature|top_p)\b[^.]{0,60}"
                r"(\bnot\b|unsupported|deprecated|extra|unexpected|cannot|only the default)"
            ),
        ),
    ),
    (
        _STREAMING,
        (
            r"stream(ing)?[`'\"]? (is |are |does )?(not|unsupported)\b|not support (the )?[`'\"]?stream",
            r"verified to stream|unsupported (parameter|value)\W+[`'\"]?stream\b[`'\"]?",
        ),
    ),
    (
        _FILTERED,
        (
            r"content exists risk|content management policy|content policy|inappropriate content|safety system",
            r"(content|prompt|input|output)\b.{0,60}\b(usage (polic|guideline)|flagged )|by (the |our )?content filter",
            r"sensitive (information|content|words)|new_sensitive|不安全|敏感内容",
            r"rejected by (the |our )?(content )?moderation|may contain nsfw|nsfw content",
        ),
    ),
    (
        _GONE,
        (
            r"not a valid model|(invalid|unknown) model\b|no such model|model[_ ]not[_ ](found|exist)|模型不存在",
            r"no models? (are |is )?(currently )?(loaded|available)|(failed|could not|unable) to load model",
            r"could not load model|model\b.{0,80}\bfailed to load|^\W*[\w.:/-]+\W+does not support chat\b",
            r"try pulling it|multiple models are loaded|model has (crashed|unloaded)|无可用渠道|无权访问模型",
            r"model (identifier|id|name)\b[^.]{0,30}\binvalid|could not resolve the foundation model",
            r"on-demand throughput",
            r"no (allowed|available) (providers|channels?)\b|no endpoints found matching|not supported model",
            r"model\b.{0,80}\b(end[- ]of[- ]life|shut ?down|sunset)",
            r"model \S+ (is )?not (supported|enabled|allowed)(?! with)",
            r"model\b.{0,80}\b(does not exist|not found|not exist|not loaded|is not available|unloaded)",
            r"model\b.{0,80}\b(decommissioned|deprecated|removed|retired|discontinued|no longer (available|supported))",
            r"no endpoints found (for|that support the requested output)|no healthy deployment",
            r"deployment\b[^.]{0,40}\bnot exist",
            r"model\b.{0,60}\bis not supported(?! with)|access to (the |this )?model",
            r"model does not support (the )?(\w+ ){1,2}api\b|does not work with the specified model",
            r"model\b.{0,80}\bis not installed|must be verified to use (the |this )?model",
            r"модел\w+\b.{0,60}\bне (найдена|существует|доступна|поддерживается)|нет (доступа к|такой) модели",
        ),
    ),
    (
        _OPERATOR,
        (
            r"(incorrect|invalid|wrong|missing|expired|no) (api|access|auth\w*)[- ]?(key|token|credential|header)",
            r"(api|access)[- _]?(key|token)\b[^.]{0,20}\b(valid|invalid|expired|incorrect|revoked|missing|leaked)",
            r"provide (an|your) api key|reported as leaked|key limit exceeded|user not found|令牌|login fail",
            r"security token\b.{0,40}\b(expired|invalid)|no such organization",
            r"subscription|free tier\b.{0,30}\b(exhausted|exceeded|ended)|denied access|has not been used in project",
            r"额度(不足|已用尽)|quota failed|insufficient_\w*quota|api usage limits|balance is not enough",
            r"(key|team|user|project) not allowed to access|prompt tokens limit exceeded",
            r"invalid x-api-key|unauthori[sz]ed|authentication|not authenticated|permission denied|access denied",
            r"good standing|arrear|overdue|insufficient (balance|credit|fund|quota)|balance is too low|余额不足|欠费",
            r"billing|payment required|exceeded your (current|monthly) quota|out of credit",
            r"spend(ing)? limit|more credits",
            r"account (is |has been |was )?(not active|deactivated|suspended|disabled|restricted|blocked|locked)",
            r"(location|country|region)\b[^.]{0,30}\bnot (supported|available)|not available in your (region|country)",
            r"organi[sz]ation (has been|is) (restricted|disabled)",
            r"not enough (balance|money|funds|credits?)|资源包余量|未开通",
            r"недостаточно средств|пополните|(ключ|токен)\w*\b.{0,20}\b(недействител|невер|просроч|истёк|истек)\w*",
            r"(неверн|недействительн|некорректн|просроченн)\w+ (api|апи)?[- ]?(ключ|токен)",
        ),
    ),
)
