"""The lines under an answer: who answered, what it rests on, what was left out."""

from collections.abc import Sequence

from core.i18n import Texts
from core.messages import Incoming
from services.chat.framing import split_parts
from services.chat.tools import find_sources
from services.chat.turn import TurnOutcome, TurnRun


class Footers:
    """Words the notice and the footer of an answer.

    Args:
        demo_ids: demo providers; their answers say so.
    """

    def __init__(self, texts: Texts, demo_ids: frozenset[str]) -> None:
        self._texts = texts
        self._demo_ids = demo_ids

    def notice(self, run: TurnRun, outcome: TurnOutcome) -> str | None:
        """Returns why the answer ended as it did, and the calls that it asks to allow."""
        language = run.incoming.speaker.language
        notice = self._texts.get(outcome.key, language, **outcome.arguments) if outcome.key is not None else None
        if notice is None and run.reply.is_cut:
            notice = self._texts.get("answer-cut", language)
        calls = run.reply.asked_calls
        questions = [
            self._texts.get("call-question", language, what=call.what if len(calls) == 1 else f"{number}. {call.what}")
            for number, call in enumerate(calls, 1)
        ]
        return "\n".join(line for line in (notice, *questions) if line) or None

    def footer(self, run: TurnRun, *, is_blind: bool, is_saved: bool) -> str | None:
        """Returns the footer of an answer, if any."""
        reply, language = run.reply, run.incoming.speaker.language
        if not reply.text:
            return None
        sources = [
            f"{number}. {source.title}: {source.url}" if source.title else f"{number}. {source.url}"
            for number, source in enumerate(find_sources(run.messages, reply.text), 1)
        ]
        lines = [
            "\n".join([self._texts.get("sources", language), *sources]) if sources else None,
            self._texts.get("answered-by", language, provider=reply.provider)
            if run.preference.footers and reply.provider
            else None,
            self._texts.get("answered-remotely", language, failed=stand_in.local, provider=stand_in.remote)
            if (stand_in := run.stand_in) is not None
            else None,
            self._texts.get("demo-footer", language) if reply.provider in self._demo_ids else None,
            self._texts.get("cannot-see-image", language) if is_blind else None,
            *self._describe_files(run.incoming),
            self._texts.get("memory-compacted", language) if run.is_first_drop else None,
            None if run.has_memory else self._texts.get("degraded-memory-footer", language),
            None if is_saved else self._texts.get("failed-storage-footer", language),
        ]
        return "\n".join(line for line in lines if line) or None

    def _describe_files(self, incoming: Incoming) -> Sequence[str]:
        """Returns a line for each file that was not read as a whole."""
        language = incoming.speaker.language
        lines: list[str] = []
        for file in incoming.files:
            parts = len(split_parts(file.text)) if file.by_part else 1
            if parts > 1:
                lines.append(self._texts.get("document-by-part", language, name=file.name[:100], parts=parts))
            if file.is_cut:
                count = len(file.text)
                lines.append(self._texts.get("document-cut", language, name=file.name[:100], characters=count))
        return lines
