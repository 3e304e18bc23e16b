"""Standings from votes: Wilson's interval, pairs, and votes about providers."""

import pytest

from services.compare.votes import ModelVotes, PairVotes, VoteTally, wilson_interval


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        (0, 0, 0.0, 1.0),  # nothing is known
        (0, 10, 0.0, 0.2775),  # the textbook case: never below zero
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I: 0.2553 to 0.3662
        (15, 148, 0.0624, 0.1605),  # the same: 0.0624 to 0.1605
        (1, 29, 0.0061, 0.1718),  # the same: 0.0061 to 0.1718
    ],
)
def test_wilson_interval_is_that_of_the_literature(successes: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(successes, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("wins", "ties", "is_decided"),
    [
        ((19, 0), 0, False),  # too few, however clear
        ((20, 0), 0, True),
        ((40, 60), 0, False),  # the other one
        ((74, 46), 0, True),
        ((31, 27), 0, False),  # chance
        ((74, 46), 400, False),  # ties are halves: 52% of 520
    ],
)
def test_pair_is_decided_by_more_than_chance(wins: tuple[int, int], ties: int, is_decided: bool) -> None:
    assert PairVotes(("a", "b"), wins, ties).is_decided is is_decided


def test_pair_in_both_orders_is_one_pair_with_the_preferred_one_first() -> None:
    tally = VoteTally(
        [PairVotes(("a/m", "b/n"), (1, 4), 1), PairVotes(("b/n", "a/m"), (3, 0)), PairVotes(("a/m", "c/o"))]
    )
    assert tally.matches()[0] == PairVotes(("b/n", "a/m"), (7, 1), 1)
    assert [match.count for match in tally.matches()] == [9, 0]


def test_votes_about_providers_leave_out_those_between_their_own_models() -> None:
    pairs = [PairVotes(("a/m", "b/n"), (2, 1)), PairVotes(("a/o", "b/n"), (1, 0), 1), PairVotes(("a/m", "a/o"), (9, 0))]
    thumbs = {"a/m": (3, 1), "a/o": (1, 0), "c/p": (0, 2)}
    assert VoteTally(pairs, thumbs).by_provider().standings() == [
        ModelVotes("a", wins=3, losses=1, ties=1, up=4, down=1),
        ModelVotes("b", wins=1, losses=3, ties=1),
        ModelVotes("c", down=2),
    ]
