"""Opens the access to the providers, and applies their changed configuration."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from bot.composition.capabilities import Capabilities, open_capabilities
from bot.composition.infrastructure import Infrastructure
from core.background import BackgroundTasks, restart_on_error
from core.observability.log import mask_secrets_too
from core.secrets import SecretBox
from services.admin.configuration import Configuration, ProviderConfiguration
from services.budgets.budgets import Budgets
from services.budgets.limits import BudgetLimits
from services.llm.models.factory import LLMModelFactory
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import Catalog
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.metrics import AttemptSpans, CapabilityMetrics, ProviderMetrics
from services.llm.routing.opening import open_fallback
from services.moderation.domain.verdict import Verdict
from services.usage.ledger import UsageLedger


@dataclass(frozen=True, slots=True)
class LLMServices:
    """Access to the providers."""

    fallback: LLMProviderFallback
    builder: ModelBuilder
    catalog: Catalog
    configuration: ProviderConfiguration
    models: LLMModelFactory[Verdict]
    budgets: Budgets
    capabilities: Capabilities


async def open_llm_services(stack: AsyncExitStack, infra: Infrastructure, ledger: UsageLedger) -> LLMServices:
    """Opens the fallback services of chat and of each capability, with the budgets that requests are reserved in."""
    settings, clock, tracing = infra.settings, infra.clock, infra.tracing
    budgets = await _open_budgets(stack, infra)
    configuration = ProviderConfiguration(
        settings.variables,
        settings.providers,
        infra.database,
        clock,
        SecretBox(settings.secrets_key) if settings.secrets_key else None,
    )
    await configuration.start()
    opened = await open_fallback(
        stack, settings, infra.redis, clock, ledger, providers=configuration.current.providers, budgets=budgets
    )
    fallback, shared = opened.fallback, opened.shared
    mask_secrets_too(configuration.current.secrets)
    infra.metrics.allow_models(_models(configuration.current))
    ProviderMetrics(infra.metrics, fallback, shared)
    if tracing.on:
        fallback.watch(AttemptSpans(tracing.tracer).note)
    builder = ModelBuilder(clock)
    stack.push_async_callback(builder.aclose)

    variables = configuration.variables()
    capabilities = await open_capabilities(stack, infra, variables, ledger, builder, opened)
    CapabilityMetrics(infra.metrics, capabilities.fallbacks)

    def apply(changed: Configuration) -> None:
        mask_secrets_too(changed.secrets)
        infra.metrics.allow_models(_models(changed))
        fallback.replace_providers(changed.providers)
        builder.keep_only([*changed.providers, *capabilities.follow(settings, configuration.variables())])

    configuration.on_change(apply)
    if settings.web_port is not None or not infra.database.is_embedded:
        tasks = BackgroundTasks()
        stack.push_async_callback(tasks.close)
        tasks.start(restart_on_error(configuration.run, "configuration", clock), "configuration")
    return LLMServices(
        fallback,
        builder,
        Catalog(builder.http_client, clock),
        configuration,
        LLMModelFactory(fallback, builder, Verdict),
        budgets,
        capabilities,
    )


def _models(configuration: Configuration) -> set[tuple[str, str]]:
    return {(provider.id, model) for provider in configuration.providers for model in provider.models}


async def _open_budgets(stack: AsyncExitStack, infra: Infrastructure) -> Budgets:
    settings = infra.settings
    limits = BudgetLimits(settings.budget_user_day, settings.budget_chat_day, settings.budget_day)
    budgets = Budgets(infra.database, infra.clock, infra.pseudonyms, limits, zone=settings.zone)
    await budgets.start()
    stack.push_async_callback(budgets.close)
    return budgets
