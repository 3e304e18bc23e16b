"""Words votes about models: the result of a comparison, and `/compare stats`."""

from core.i18n import Texts
from services.compare.votes import Comparison, Votes

SHOWN = 20


class VoteReports:
    """Texts of votes, for everyone."""

    def __init__(self, votes: Votes, texts: Texts) -> None:
        self._votes = votes
        self._texts = texts

    def result(self, comparison: Comparison, language: str | None) -> str:
        """Returns the vote and the names of the models."""
        winner = comparison.winner.value if comparison.winner is not None else "tie"
        model_a, model_b = comparison.models
        return self._texts.get("compare-voted", language, winner=winner, a=model_a, b=model_b)

    async def standings(self, language: str | None) -> str:
        """Returns the votes by model.

        Raises:
            StorageError: the database fails.
        """
        lines = [
            self._texts.get(
                "compare-standing", language, model=each.model, percent=round(100 * each.share),
                wins=each.wins, losses=each.losses, ties=each.ties, up=each.up, down=each.down,
            )
            for each in (await self._votes.standings())[:SHOWN]
        ]  # fmt: skip
        if not lines:
            return self._texts.get("compare-no-votes", language)
        return "\n\n".join([self._texts.get("compare-standings", language), *lines])
