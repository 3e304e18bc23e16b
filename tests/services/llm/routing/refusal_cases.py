"""Refusals of real servers, from their documentation, their source and public reports."""

# ruff: noqa: E501 - a row a line

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.config.providers import ProviderKind as Kind
from services.llm.request import Capability
from services.llm.routing.faults.refusal_words import Fault

Body = Mapping[str, Any] | list[Any] | str


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal: the server, its wire format, the body, and its expected classification."""

    server: str
    kind: Kind
    status: int
    body: Body
    meaning: Fault | Capability


COMPATIBLE, OPENAI, AZURE = Kind.OPENAI_COMPATIBLE, Kind.OPENAI, Kind.AZURE_OPENAI
KEY, GONE, LONG, FILTER, LOADING = (
    Fault.MISCONFIGURED,
    Fault.MODEL_GONE,
    Fault.CONTEXT_WINDOW,
    Fault.REFUSED,
    Fault.LOADING,
)
UNCLEAR = Fault.UNCLEAR
TOOLS, CHOICE, SYSTEM, IMAGES, STREAM, SETTINGS = (
    Capability.TOOLS,
    Capability.TOOL_CHOICE,
    Capability.SYSTEM_ROLE,
    Capability.IMAGES,
    Capability.STREAMING,
    Capability.SETTINGS,
)


def openai(message: str, code: str | int | None = None, kind: str | None = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def flat(message: str, code: str | int | None = 400, kind: str = "BadRequestError") -> dict[str, Any]:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


def google(message: str, status: str = "INVALID_ARGUMENT", code: int = 400) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status}}


def anthropic(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


REFUSALS: list[Refusal] = [
    # The key
    Refusal("OpenAI", OPENAI, 401, openai("Incorrect API key provided: sk-ab***yz.", "invalid_api_key"), KEY),
    Refusal("xAI", COMPATIBLE, 400, {"code": "invalid-argument", "error": "Incorrect API key provided: ab***yz."}, KEY),
    Refusal("Azure", AZURE, 401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key."}}, KEY),
    Refusal("Google", Kind.GOOGLE, 400, google("API key not valid. Please pass a valid API key."), KEY),
    Refusal("Google expired", Kind.GOOGLE, 400, google("API key expired. Please renew the API key."), KEY),
    Refusal("Anthropic", Kind.ANTHROPIC, 401, anthropic("invalid x-api-key", "authentication_error"), KEY),
    Refusal("Mistral", Kind.MISTRAL, 401, {"detail": "Unauthorized"}, KEY),
    Refusal("Groq", Kind.GROQ, 401, openai("Invalid API Key", "invalid_api_key"), KEY),
    Refusal("DeepSeek", Kind.DEEPSEEK, 401, openai("Authentication Fails, Your api key is invalid", "invalid_request_error"), KEY),
    Refusal("OpenRouter", Kind.OPENROUTER, 401, {"error": {"message": "No auth credentials found", "code": 401}}, KEY),
    Refusal("LiteLLM", COMPATIBLE, 400, openai("Authentication Error, Invalid proxy server token passed", "400", "auth_error"), KEY),
    Refusal("Together", COMPATIBLE, 401, openai("Invalid API key provided. You can find your API key at api.together.xyz", "invalid_api_key"), KEY),
    Refusal("Zhipu", COMPATIBLE, 400, {"error": {"code": "1002", "message": "Authorization Token非法"}}, KEY),
    Refusal("Alibaba", COMPATIBLE, 400, openai("Incorrect API key provided. ", "invalid_api_key"), KEY),
    Refusal("Cloudflare gateway", COMPATIBLE, 400, {"errors": [{"code": 10000, "message": "Authentication error"}]}, KEY),
    # The account
    Refusal("OpenAI quota", OPENAI, 429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), KEY),
    Refusal("OpenAI inactive", OPENAI, 429, openai("Your account is not active, please check your billing details", "billing_not_active"), KEY),
    Refusal("OpenAI region", OPENAI, 403, openai("Country, region, or territory not supported", "unsupported_country_region_territory"), KEY),
    Refusal("Anthropic credit", Kind.ANTHROPIC, 400, anthropic("Your credit balance is too low to access the Anthropic API."), KEY),
    Refusal("Anthropic organisation", Kind.ANTHROPIC, 400, anthropic("This organization has been disabled."), KEY),
    Refusal("Google billing", Kind.GOOGLE, 400, google("Please enable billing on your project.", "FAILED_PRECONDITION"), KEY),
    Refusal("Google location", Kind.GOOGLE, 400, google("User location is not supported for the API use.", "FAILED_PRECONDITION"), KEY),
    Refusal("DeepSeek balance", Kind.DEEPSEEK, 402, openai("Insufficient Balance", "invalid_request_error", "unknown_error"), KEY),
    Refusal("OpenRouter credits", Kind.OPENROUTER, 402, {"error": {"message": "This request requires more credits", "code": 402}}, KEY),
    Refusal("Alibaba arrears", COMPATIBLE, 400, openai("Access denied, please make sure your account is in good standing.", "Arrearage", "Arrearage"), KEY),
    Refusal("Zhipu arrears", COMPATIBLE, 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, KEY),
    Refusal("Groq blocked", Kind.GROQ, 400, openai("Organization has been restricted.", "organization_restricted"), KEY),
    Refusal("LiteLLM budget", COMPATIBLE, 429, openai("Budget has been exceeded! Current cost: 26.0, Max budget: 0.25", "429", "budget_exceeded"), KEY),
    Refusal("Together limit", COMPATIBLE, 400, openai("Your account has reached its spending limit."), KEY),
    Refusal("Moonshot", COMPATIBLE, 403, openai("Your account is suspended, please check your plan and billing details"), KEY),
    # The model
    Refusal("OpenAI no model", OPENAI, 404, openai("The model `gpt-9` does not exist or you do not have access to it.", "model_not_found"), GONE),
    Refusal("Azure no deployment", AZURE, 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}, GONE),
    Refusal("OpenRouter", Kind.OPENROUTER, 400, {"error": {"message": "vendor/some-model-pro is not a valid model ID", "code": 400}, "user_id": "u"}, GONE),
    Refusal("OpenRouter no endpoints", Kind.OPENROUTER, 404, {"error": {"message": "No endpoints found for vendor/old-model.", "code": 404}}, GONE),
    Refusal("DeepSeek", Kind.DEEPSEEK, 400, openai("Model Not Exist", "invalid_request_error"), GONE),
    Refusal("Mistral", Kind.MISTRAL, 400, flat("Invalid model: x", "1500", "invalid_model"), GONE),
    Refusal("Groq", Kind.GROQ, 400, openai("The model `x` has been decommissioned", "model_decommissioned"), GONE),
    Refusal("Anthropic", Kind.ANTHROPIC, 404, anthropic("model: claude-9", "not_found_error"), GONE),
    Refusal("Google", Kind.GOOGLE, 404, google("models/gemini-9 is not found for API version v1beta", "NOT_FOUND", 404), GONE),
    Refusal("Ollama", Kind.OLLAMA, 404, openai('model "llama9" not found, try pulling it first', None, "not_found_error"), GONE),
    Refusal("LM Studio none loaded", COMPATIBLE, 400, {"error": {"message": "No models loaded. Please load a model in the developer page.", "type": "invalid_request_error", "param": "model"}}, GONE),
    Refusal("LM Studio", COMPATIBLE, 400, {"error": {"message": 'Failed to load model "x". Error: insufficient resources', "type": "invalid_request_error"}}, GONE),
    Refusal("vLLM", COMPATIBLE, 404, flat("The model `x` does not exist.", 404, "NotFoundError"), GONE),
    Refusal("LiteLLM", COMPATIBLE, 400, openai("/chat/completions: Invalid model name passed in model=x. Call `/v1/models`", "400", None), GONE),
    Refusal("xAI", COMPATIBLE, 404, {"code": "Some requested entity was not found", "error": "The model grok-0 does not exist or your team has no access to it."}, GONE),
    Refusal("Together", COMPATIBLE, 404, openai("Unable to access model x. Model not found or is not available.", "model_not_available"), GONE),
    Refusal("Zhipu", COMPATIBLE, 400, {"error": {"code": "1211", "message": "模型不存在,请检查模型代码。"}}, GONE),
    Refusal("Fireworks", COMPATIBLE, 404, openai("Model not found, inaccessible, and/or not deployed", "NOT_FOUND"), GONE),
    Refusal("HF router", COMPATIBLE, 400, openai("The requested model 'a/b' is not supported by any provider you have enabled.", "model_not_supported"), GONE),
    # Capabilities
    Refusal("Ollama tools", Kind.OLLAMA, 400, openai("registry.ollama.ai/library/gemma:2b does not support tools", None, "api_error"), TOOLS),
    Refusal("vLLM tools", COMPATIBLE, 400, flat('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'), TOOLS),
    Refusal("llama.cpp tools", COMPATIBLE, 500, openai("tools param requires --jinja flag", 500, "server_error"), TOOLS),
    Refusal("a gateway without tools", COMPATIBLE, 501, openai("tool calling not supported", None, "not_implemented"), TOOLS),
    Refusal("llama.cpp without context shift", COMPATIBLE, 500, openai("context shift is disabled", 500, "server_error"), LONG),
    Refusal("OpenRouter tools", Kind.OPENROUTER, 404, {"error": {"message": 'No endpoints found that support tool use. Try disabling "get".', "code": 404}}, TOOLS),
    Refusal("Google tools", Kind.GOOGLE, 400, google("Function calling is not enabled for models/gemma-3-27b-it"), TOOLS),
    Refusal("Groq tools", Kind.GROQ, 400, openai("`tool calling` is not supported with this model"), TOOLS),
    Refusal("Azure tools", AZURE, 400, openai("Unrecognized request argument supplied: tools"), TOOLS),
    Refusal("TGI tools", COMPATIBLE, 422, {"error": "Tool use is not supported for this model", "error_type": "validation"}, TOOLS),
    Refusal("DeepSeek choice", Kind.DEEPSEEK, 400, openai("deepseek-reasoner does not support this tool_choice", "invalid_request_error"), CHOICE),
    Refusal("vLLM system", COMPATIBLE, 400, flat("System role not supported"), SYSTEM),
    Refusal("LM Studio system", COMPATIBLE, 400, {"error": "Error rendering prompt with jinja template: Only user and assistant roles are supported!"}, SYSTEM),
    Refusal("Google system", Kind.GOOGLE, 400, google("Developer instruction is not enabled for models/gemma-3-27b-it"), SYSTEM),
    Refusal("OpenAI system", OPENAI, 400, openai("Unsupported value: 'messages[0].role' does not support 'system' with this model.", "unsupported_value"), SYSTEM),
    Refusal("OpenRouter images", Kind.OPENROUTER, 404, {"error": {"message": "No endpoints found that support image input", "code": 404}}, IMAGES),
    Refusal("DeepSeek images", COMPATIBLE, 400, openai("Failed to deserialize the JSON body into the target type: messages[0]: unknown variant `image_url`, expected `text`"), IMAGES),
    Refusal("llama.cpp images", COMPATIBLE, 500, openai("image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", 500, "server_error"), IMAGES),
    Refusal("vLLM images", COMPATIBLE, 400, flat("At most 0 image(s) may be provided in one request."), IMAGES),
    Refusal("OpenAI images", OPENAI, 400, openai("Invalid content type. image_url is only supported by certain models."), IMAGES),
    Refusal("OpenAI streaming", OPENAI, 400, openai("Your organization must be verified to stream this model.", "unsupported_value"), STREAM),
    Refusal("o1 streaming", AZURE, 400, openai("Unsupported value: 'stream' does not support true with this model.", "unsupported_value"), STREAM),
    Refusal("OpenAI answer limit", OPENAI, 400, openai("max_tokens is too large: 4096. This model supports at most 2048 completion tokens.", "invalid_value"), SETTINGS),
    Refusal("Together stream options", COMPATIBLE, 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}, SETTINGS),
    # The context window
    Refusal("llama.cpp", COMPATIBLE, 400, {"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 4157, "n_ctx": 4096}}, LONG),
    Refusal("OpenAI", OPENAI, 400, openai("This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.", "context_length_exceeded"), LONG),
    Refusal("vLLM", COMPATIBLE, 400, flat("You passed 1015 input tokens and requested 10 output tokens. However, the model's context length is only 1024 tokens"), LONG),
    Refusal("LM Studio", COMPATIBLE, 400, {"error": "Trying to keep the first 5123 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens"}, LONG),
    Refusal("Anthropic", Kind.ANTHROPIC, 400, anthropic("prompt is too long: 215000 tokens > 200000 maximum"), LONG),
    Refusal("Google", Kind.GOOGLE, 400, google("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."), LONG),
    Refusal("Mistral", Kind.MISTRAL, 400, flat("Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length", "3051", "invalid_request_prompt"), LONG),
    Refusal("Groq", Kind.GROQ, 413, openai("Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 12328", "rate_limit_exceeded", "tokens"), LONG),
    Refusal("TGI", COMPATIBLE, 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens", "error_type": "validation"}, LONG),
    Refusal("Alibaba", COMPATIBLE, 400, openai("Range of input length should be [1, 30720]", "invalid_parameter_error"), LONG),
    Refusal("xAI", COMPATIBLE, 400, {"code": "Client specified an invalid argument", "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."}, LONG),
    Refusal("Ollama", Kind.OLLAMA, 400, openai("prompt too long; exceeded max context length by 812 tokens", None, "api_error"), LONG),
    Refusal("Zhipu", COMPATIBLE, 400, {"error": {"code": "1261", "message": "Prompt 超长"}}, LONG),
    Refusal("LiteLLM", COMPATIBLE, 400, openai("litellm.BadRequestError: litellm.ContextWindowExceededError: AnthropicError - too long", "400", None), LONG),
    # Filters
    Refusal("Azure", AZURE, 400, openai("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "content_filter", None), FILTER),
    Refusal("DeepSeek", Kind.DEEPSEEK, 400, openai("Content Exists Risk", "invalid_request_error"), FILTER),
    Refusal("Alibaba", COMPATIBLE, 400, openai("Output data may contain inappropriate content.", "data_inspection_failed", "data_inspection_failed"), FILTER),
    # Loading
    Refusal("llama.cpp", COMPATIBLE, 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, LOADING),
    Refusal("HF", COMPATIBLE, 503, {"error": "Model meta/llama is currently loading", "estimated_time": 20.0}, LOADING),
    Refusal("Ollama", Kind.OLLAMA, 503, openai("llm server loading model", None, "api_error"), LOADING),
    # Without known words
    Refusal("nginx", COMPATIBLE, 413, "<html><head><title>413 Request Entity Too Large</title></head></html>", UNCLEAR),
    Refusal("a firewall", COMPATIBLE, 403, "<!DOCTYPE html><title>Access denied</title>", UNCLEAR),
    Refusal("OpenAI parameter", OPENAI, 400, openai("Unsupported parameter: 'max_tokens' is not usable with this model."), UNCLEAR),
    Refusal("a proxy", COMPATIBLE, 400, openai("1 validation error for CompletionRequest", 400), UNCLEAR),
    Refusal("FastAPI", COMPATIBLE, 422, {"detail": [{"type": "missing", "loc": ["body", "messages"], "msg": "Field required"}]}, UNCLEAR),
    Refusal("plain text", COMPATIBLE, 400, "Bad Request", UNCLEAR),
]  # fmt: skip

INVENTED: list[Refusal] = [
    Refusal("403 plain", COMPATIBLE, 403, {"error":{"message":"Forbidden"}}, KEY),
    Refusal("403 ip", COMPATIBLE, 403, {"message":"Your IP address is not allowed to access this resource."}, KEY),
    Refusal("403 detail", COMPATIBLE, 403, {"detail":"Not authenticated"}, KEY),
    Refusal("403 plan", COMPATIBLE, 403, openai("Your plan does not include this model."), KEY),
    Refusal("403 empty", COMPATIBLE, 403, "", KEY),
    Refusal("403 google perm", Kind.GOOGLE, 403, google("Permission denied on resource project x.","PERMISSION_DENIED",403), KEY),
    Refusal("403 anthropic perm", Kind.ANTHROPIC, 403, anthropic("Your API key does not have permission to use the specified resource.","permission_error"), KEY),
    Refusal("403 mistral", Kind.MISTRAL, 403, {"message":"Access denied to this endpoint"}, KEY),
    Refusal("403 groq", Kind.GROQ, 403, openai("The model `x` is blocked at the organization level.","model_permission_blocked_org","permissions_error"), KEY),
    Refusal("403 azure", AZURE, 403, {"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}, KEY),
    Refusal("404 plain", COMPATIBLE, 404, "404 page not found", KEY),
    Refusal("404 json", COMPATIBLE, 404, {"detail":"Not Found"}, KEY),
    Refusal("404 openai url", OPENAI, 404, openai("Invalid URL (POST /v2/chat/completions)"), KEY),
    Refusal("405", COMPATIBLE, 405, {"detail":"Method Not Allowed"}, UNCLEAR),
    Refusal("406", COMPATIBLE, 406, {"error":"not acceptable"}, UNCLEAR),
    Refusal("409", COMPATIBLE, 409, {"error":{"message":"Another request is being processed for this session"}}, UNCLEAR),
    Refusal("410", COMPATIBLE, 410, openai("Nothing is here any more."), UNCLEAR),
    Refusal("411", COMPATIBLE, 411, "Length Required", UNCLEAR),
    Refusal("413 json", COMPATIBLE, 413, {"error":{"message":"Payload Too Large"}}, UNCLEAR),
    Refusal("415", COMPATIBLE, 415, {"detail":"Unsupported Media Type"}, UNCLEAR),
    Refusal("418", COMPATIBLE, 418, "I'm a teapot", UNCLEAR),
    Refusal("421", COMPATIBLE, 421, "Misdirected Request", UNCLEAR),
    Refusal("423", COMPATIBLE, 423, {"error":"locked"}, UNCLEAR),
    Refusal("424", COMPATIBLE, 424, {"error":{"message":"Model container failed its health check","code":"ModelError"}}, UNCLEAR),
    Refusal("426", COMPATIBLE, 426, "Upgrade Required", UNCLEAR),
    Refusal("428", COMPATIBLE, 428, {"error":"precondition required"}, UNCLEAR),
    Refusal("431", COMPATIBLE, 431, "Request Header Fields Too Large", UNCLEAR),
    Refusal("451", COMPATIBLE, 451, openai("Unavailable For Legal Reasons"), UNCLEAR),
    Refusal("400 empty", COMPATIBLE, 400, "", UNCLEAR),
    Refusal("400 list", COMPATIBLE, 400, [{"error":{"message":"weird"}}], UNCLEAR),
    Refusal("400 null", COMPATIBLE, 400, "null", UNCLEAR),
    Refusal("400 number", COMPATIBLE, 400, "42", UNCLEAR),
    Refusal("400 french", COMPATIBLE, 400, openai("Le modèle demandé n'est pas prêt."), UNCLEAR),
    Refusal("400 anthropic odd", Kind.ANTHROPIC, 400, anthropic("Something entirely new"), UNCLEAR),
    Refusal("400 google odd", Kind.GOOGLE, 400, google("Something entirely new"), UNCLEAR),
    Refusal("400 google list", Kind.GOOGLE, 400, [google("Something entirely new")], UNCLEAR),
    Refusal("440", COMPATIBLE, 440, "Login Timeout", UNCLEAR),
    Refusal("mistral 422", Kind.MISTRAL, 422, {"detail":[{"loc":["body"],"msg":"x","type":"y"}]}, UNCLEAR),
    Refusal("ollama 400", Kind.OLLAMA, 400, {"error":"json: cannot unmarshal array into Go struct field"}, UNCLEAR),
    Refusal("400 functions", COMPATIBLE, 400, openai("Sorry, our engine has no idea of functions."), UNCLEAR),
    Refusal("400 first message", COMPATIBLE, 400, openai("The first message may come from a human only."), UNCLEAR),
    Refusal("422 volume", COMPATIBLE, 422, {"reason": "the volume of the text surpasses this engine"}, UNCLEAR),
    Refusal("407 page", COMPATIBLE, 407, "<html>Proxy Authentication Required</html>", UNCLEAR),
    Refusal("501 page", COMPATIBLE, 501, "<html>Not Implemented</html>", UNCLEAR),
    Refusal("520 page", COMPATIBLE, 520, "<html>Web server is returning an unknown error</html>", UNCLEAR),
    Refusal("530", COMPATIBLE, 530, "error code: 1033", UNCLEAR),
    Refusal("500 parser", COMPATIBLE, 500, openai("NullPointerException in FunctionCallParser", "x", "server_error"), UNCLEAR),
    Refusal("500 template", COMPATIBLE, 500, openai("Value is not callable: null at row 1, column 12", "x", "server_error"), UNCLEAR),
    Refusal("302", COMPATIBLE, 302, "", UNCLEAR),
    Refusal("204", COMPATIBLE, 204, "", UNCLEAR),
    Refusal("200 page", COMPATIBLE, 200, "<html>Sign in</html>", UNCLEAR),
    Refusal("600", COMPATIBLE, 600, "what", UNCLEAR),
]  # fmt: skip
"""Refusals that no server is known to give. `KEY` and `UNCLEAR` stand for half an hour and five minutes of rest."""
