"""The page of comparisons: which model or provider people prefer, and whether that is more than chance."""

from datetime import timedelta
from typing import Final

from aiohttp import web

from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import download, to_csv
from bot.web.server import HttpRoute
from services.compare.votes import FEWEST_VOTES, VoteTally

PERIODS: Final = (7, 30, 0)
"""Days that the page offers; 0 for all votes."""
GROUPS: Final = ("model", "provider")


class ComparePages:
    """Shows votes. Questions and answers are not stored with them."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session themselves."""
        return (
            self._frame.page("/compare", self.compare),
            *self._frame.file("/compare.csv", self.compare_csv, "compare"),
        )

    async def compare(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the standings with their confidence intervals, and the pairs."""
        days, group, tally = await self._read(request)
        standings, matches = tally.standings(), tally.matches()
        return self._frame.render(
            request,
            session,
            "compare.html",
            title="web-compare",
            page="compare",
            rows=standings,
            matches=matches,
            leader=next((row for row in standings if row.is_preferred), None),
            votes=sum(match.count for match in matches),
            fewest=FEWEST_VOTES,
            days=days,
            periods=PERIODS,
            group=group,
            groups=GROUPS,
        )

    async def compare_csv(self, request: web.Request, _session: OperatorSession) -> web.Response:
        """Returns standings and pairs as CSV: of a pair, `against` names the other one."""
        days, group, tally = await self._read(request)
        names = (group, "against", "wins", "losses", "ties", "share", "low_95", "high_95", "thumbs_up", "thumbs_down")
        lines: list[tuple[object, ...]] = [
            (
                each.model, "", each.wins, each.losses, each.ties, f"{each.share:.4f}",
                *(f"{bound:.4f}" for bound in each.interval), each.up, each.down,
            )
            for each in tally.standings()
        ]  # fmt: skip
        lines += [(*match.names, *match.wins, match.ties, "", "", "", "", "") for match in tally.matches()]
        return download(to_csv(names, lines), "text/csv", f"compare-{f'{days}-days' if days else 'all'}-{group}.csv")

    async def _read(self, request: web.Request) -> tuple[int, str, VoteTally]:
        """Returns the chosen period in days, the chosen grouping, and the votes."""
        text, by = request.query.get("days", ""), request.query.get("by", "")
        days = int(text) if text in {str(days) for days in PERIODS} else 30
        group = by if by in GROUPS else GROUPS[0]
        parts = self._frame.parts
        tally = await parts.votes.tally(parts.clock.now() - timedelta(days=days) if days else None)
        return days, group, tally.by_provider() if group == "provider" else tally
