"""Handlers of approvals for tools that act: the buttons under an answer, and the answer that follows the call."""

import structlog
from aiogram import Bot, Router
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message

from bot.telegram.answers.keyboards import DecideCall
from bot.telegram.answers.responder import Responder
from bot.telegram.api.updates import conversation_key, is_group, to_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.jobs import CallDecided, call_job
from core.clock import Clock
from core.i18n import Texts
from core.messages import ChatKind, Incoming
from services.chat.turn import TurnRequest
from services.inbox.job import Job, JobSink
from services.mcp.calls import CallStatus, Decision, ToolCall, ToolCalls
from services.mcp.tools import McpTools, describe_call

log = structlog.get_logger()


class ApprovalHandlers:
    """Stores decisions about tool calls, and executes allowed ones in the lane of the conversation."""

    def __init__(
        self,
        *,
        bot: Bot,
        calls: ToolCalls,
        tools: McpTools,
        inbox: JobSink,
        responder: Responder,
        delivery: Delivery,
        texts: Texts,
        clock: Clock,
    ) -> None:
        self._bot = bot
        self._calls = calls
        self._tools = tools
        self._inbox = inbox
        self._responder = responder
        self._delivery = delivery
        self._texts = texts
        self._clock = clock

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="approvals")
        router.callback_query.register(self.decide, DecideCall.filter())
        return router

    async def decide(self, query: CallbackQuery, callback_data: DecideCall) -> None:
        """Stores the decision and enqueues the call. Idempotent: a repeated press enqueues nothing twice."""
        message, language = query.message, query.from_user.language_code
        call = await self._calls.find(callback_data.call)
        if not isinstance(message, Message) or call is None or call.key != conversation_key(message):
            await self._delivery.answer_callback(query.id, self._texts.get("call-gone", language), alert=True)
            return
        if call.user_id != query.from_user.id:
            await self._delivery.answer_callback(query.id, self._texts.get("call-owner-only", language), alert=True)
            return
        is_denied = callback_data.decision is Decision.DENY
        if not await self._calls.decide(call, callback_data.decision):
            call = await self._calls.find(call.id) or call
            # The first press counts; a later press of another button is answered with the first decision.
            is_denied = call.status is CallStatus.DENIED
            if call.status not in {CallStatus.ALLOWED, CallStatus.DENIED}:
                await self._delivery.answer_callback(query.id, self._texts.get("call-gone", language), alert=True)
                await self._remove_buttons(message, call)
                return
        question = message.reply_to_message
        payload = CallDecided(
            call=call.id,
            speaker=to_speaker(query.from_user),
            chat_kind=ChatKind.GROUP if is_group(message) else ChatKind.PRIVATE,
            chat_title=message.chat.title,
            reply_to=question.message_id if question is not None and is_group(message) else None,
        )
        await self._inbox.put([call_job(self._bot.id, call, payload)])
        await self._delivery.answer_callback(
            query.id, self._texts.get("call-denied" if is_denied else "call-allowed", language)
        )
        await self._remove_buttons(message, call)

    async def resume(self, decided: CallDecided, job: Job) -> None:
        """Carries out a call that was allowed, and answers with its result."""
        call = await self._calls.find(decided.call)
        if call is None:
            log.info("tool.call_gone", call=decided.call)
            return
        result = await self._tools.carry_out(call)
        key = "call-prompt-denied" if call.status is CallStatus.DENIED else "call-prompt-allowed"
        incoming = Incoming(
            key=call.key,
            chat_kind=decided.chat_kind,
            speaker=decided.speaker,
            text=self._texts.get(key, decided.speaker.language, what=describe_call(call)),
            sent_at=self._clock.now(),
            chat_title=decided.chat_title,
        )
        request = TurnRequest(incoming, origin=job.id, prelude=self._tools.as_messages(call, result))
        await self._responder.answer(request, reply_to=decided.reply_to)

    async def _remove_buttons(self, message: Message, call: ToolCall) -> None:
        """Removes the buttons of a call; those of others stay."""
        own = f"{DecideCall.__prefix__}{DecideCall.__separator__}{call.id}{DecideCall.__separator__}"
        kept = [
            row
            for row in (message.reply_markup.inline_keyboard if message.reply_markup is not None else [])
            if not any((key.callback_data or "").startswith(own) for key in row)
        ]
        markup = InlineKeyboardMarkup(inline_keyboard=kept) if kept else None
        await self._delivery.edit_markup(message.chat.id, message.message_id, markup)
