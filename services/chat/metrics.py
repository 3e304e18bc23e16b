"""What is counted of turns."""

from core.telemetry import Metrics
from services.chat.reply import ReplyPhase
from services.chat.watching import TokensUsed, TurnEnded


class TurnMetrics:
    """Counts turns and what they used.

    Args:
        metrics: where it is shown.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._turns = metrics.counter("turns", "Turns by how they ended", ("phase",))
        self._seconds = metrics.histogram("turn_seconds", "Time of a whole turn, from its message to its saved answer")
        for phase in ReplyPhase:
            if phase is not ReplyPhase.RUNNING:
                self._turns.labels(phase.name.lower())

    def note(self, event: TurnEnded | TokensUsed) -> None:
        """Count the end of a turn, or what a response of it used."""
        match event:
            case TurnEnded(phase, seconds):
                self._turns.labels(phase).inc()
                self._seconds.observe(seconds)
            case TokensUsed(provider, model, tokens_in, tokens_out):
                self._metrics.tokens(provider, model, tokens_in, tokens_out)
