"""The pure routing rules."""

from dataclasses import replace
from itertools import product

import pytest

from services.llm.routing.state import changes
from services.llm.routing.state import rules as routing
from services.llm.routing.state.rules import Change, CircuitPhase, Cooldown, Force, Lease, Preferred, Routing

NOW = 1000.0
ABC = ("a", "b", "c")


def cooling(provider: str, left_s: float = 100) -> Cooldown:
    """A cooldown that ends in so many seconds; a negative number makes the provider half-open."""
    return Cooldown(provider, "HTTP 500", NOW - 50, NOW + left_s, "r1")


def state(
    *cooldowns: Cooldown, force: Force | None = None, preferred: str | None = None, probing: str | None = None
) -> Routing:
    preference = Preferred(preferred, NOW - 60, NOW + 1740) if preferred else None
    probes = {probing: Lease(probing, "r1:1", NOW + 60)} if probing else {}
    return Routing(force, preference, {entry.provider: entry for entry in cooldowns}, probes)


def force(provider: str, left_s: float = 100) -> Force:
    return Force(provider, NOW - 10, NOW + left_s)


ORDERS: list[tuple[str, Routing, str | None, str | None, str]] = [
    # the state, the user's choice, the probe that this request holds, the order
    ("nothing is known: by priority", Routing(), None, None, "abc"),
    ("the preferred one comes first", state(preferred="b"), None, None, "bac"),
    ("a preference that ran out is none", Routing(preference=Preferred("b", 0, NOW)), None, None, "abc"),
    ("a preferred one in cooldown is none", state(cooling("b"), preferred="b"), None, None, "acb"),
    ("a preferred half-open one is none", state(cooling("b", -1), preferred="b"), None, None, "acb"),
    ("the forced one comes first", state(force=force("c"), preferred="b"), None, None, "cba"),
    ("even in cooldown", state(cooling("c"), force=force("c")), None, None, "cab"),
    ("a force that ran out is none", state(force=force("c", 0)), None, None, "abc"),
    ("a force of an unknown provider is none", state(force=force("z")), None, None, "abc"),
    ("the choice comes before the preferred", state(preferred="b"), "c", None, "cba"),
    ("and after the forced", state(force=force("a"), preferred="b"), "c", None, "acb"),
    ("a choice in cooldown is still the choice", state(cooling("c")), "c", None, "cab"),
    ("a choice of an unknown provider is none", Routing(), "z", None, "abc"),
    ("cooling ones come last", state(cooling("a")), None, None, "bca"),
    ("half-open ones before them", state(cooling("a"), cooling("b", -1)), None, None, "cba"),
    ("all cooling: who is free first", state(cooling("a", 30), cooling("b", 10), cooling("c", 20)), None, None, "bca"),
    ("the probe comes before the preferred", state(cooling("a", -1), preferred="b"), None, "a", "abc"),
    ("whose probe it is not waits behind", state(cooling("a", -1), preferred="b", probing="a"), None, None, "bca"),
]


@pytest.mark.parametrize(("known", "choice", "probe", "expected"), [r[1:] for r in ORDERS], ids=[r[0] for r in ORDERS])
def test_order(known: Routing, choice: str | None, probe: str | None, expected: str) -> None:
    """Forced, chosen, probed, preferred, then by priority with cooldowns last; every provider is listed."""
    assert "".join(routing.order(known, ABC, NOW, choice=choice, probe=probe)) == expected


PROBES: list[tuple[str, Routing, str | None, str | None]] = [
    # the state, the user's choice, who should be probed
    ("everybody is healthy", Routing(), None, None),
    ("the cooldown goes on", state(cooling("a"), preferred="b"), None, None),
    ("the cooldown ended", state(cooling("a", 0), preferred="b"), None, "a"),
    ("the cooldown ended, nobody is preferred", state(cooling("a", 0)), None, "a"),
    ("somebody is at it", state(cooling("a", -1), preferred="b", probing="a"), None, None),
    ("whoever was at it died", replace(state(cooling("a", -1)), probes={"a": Lease("a", "x", NOW)}), None, "a"),
    ("one below the preferred is not worth it", state(cooling("c", -1), preferred="b"), None, None),
    ("one below a healthy one is not worth it", state(cooling("b", -1)), None, None),
    ("the second is above the preferred third", state(cooling("a"), cooling("b", -1), preferred="c"), None, "b"),
    ("one at a time", state(cooling("a", -1), cooling("b", -1), preferred="c", probing="a"), None, None),
    ("a force decides", state(cooling("a", -1), force=force("b")), None, None),
    ("a choice decides", state(cooling("a", -1)), "b", None),
    ("a choice of somebody unknown does not", state(cooling("a", -1)), "z", "a"),
    ("a preference of another version does not", state(cooling("b", -1), preferred="z"), None, None),
]


@pytest.mark.parametrize(("known", "choice", "expected"), [r[1:] for r in PROBES], ids=[r[0] for r in PROBES])
def test_probe_due(known: Routing, choice: str | None, expected: str | None) -> None:
    """Only a half-open provider that would lead if it were healthy is probed, by one request at a time."""
    assert routing.probe_due(known, ABC, NOW, choice=choice) == expected


LEADERS: list[tuple[str, Routing, str, bool]] = [
    ("the first always may", Routing(), "a", True),
    ("a healthy one stands above", Routing(), "b", False),
    ("the one above cools down", state(cooling("a")), "b", True),
    ("the one above is half-open", state(cooling("a", -1)), "b", True),
    ("one of two above is healthy", state(cooling("a")), "c", False),
]


@pytest.mark.parametrize(("known", "provider", "expected"), [r[1:] for r in LEADERS], ids=[r[0] for r in LEADERS])
def test_leads(known: Routing, provider: str, *, expected: bool) -> None:
    """An answer makes its provider preferred only if no healthy one has a higher priority."""
    assert routing.leads(known, provider, ABC, NOW) is expected


@pytest.mark.parametrize("known", [row[1] for row in ORDERS], ids=[row[0] for row in ORDERS])
def test_standing_order_agrees_with_the_rules_until_an_entry_ends(known: Routing) -> None:
    standing = routing.find_standing_order(known, ABC, NOW)
    assert standing.until > NOW
    ends = [entry.until for entry in (known.force, known.preference, *known.cooldowns.values()) if entry is not None]
    assert all(end <= NOW or standing.until <= end for end in ends)
    for now in (NOW, min(standing.until - 0.1, NOW + 1e6)):
        assert standing.order == tuple(routing.order(known, ABC, now))
        assert standing.forced == known.forced(now)
        assert standing.leaders == {each for each in ABC if routing.leads(known, each, ABC, now)}
        for prefer in (True, False):
            assert standing.proven[prefer] == {
                each for each in ABC if routing.is_proven(known, each, now, prefer=prefer)
            }


def proven(provider: str, *, began: float = NOW - 1, prefer: bool = True) -> Change:
    return changes.proven(provider, began, NOW, 1800, ABC, prefer=prefer)


@pytest.mark.parametrize("known", [row[1] for row in ORDERS], ids=[row[0] for row in ORDERS])
def test_is_proven_means_that_an_answer_changes_nothing(known: Routing) -> None:
    for provider, prefer in product(ABC, (True, False)):
        if routing.is_proven(known, provider, NOW, prefer=prefer):
            assert proven(provider, prefer=prefer)(known) is known


def test_is_proven_holds_for_the_preferred_provider_and_without_a_vote() -> None:
    known = state(cooling("c"), preferred="b")
    cases = [("a", True), ("a", False), ("b", True), ("b", False), ("c", True), ("c", False)]
    assert [each for each in cases if routing.is_proven(known, each[0], NOW, prefer=each[1])] == [
        ("a", False), ("b", True), ("b", False),
    ]  # fmt: skip


def test_proven_sets_the_preference() -> None:
    assert proven("b")(Routing()) == Routing(preference=Preferred("b", NOW, NOW + 1800))


def test_proven_does_not_extend_the_preference() -> None:
    """The same state object is returned: nothing to write."""
    known = state(preferred="b")

    assert proven("b")(known) is known


def test_proven_replaces_the_preference_of_a_lower_provider_only() -> None:
    known = state(preferred="b")

    assert proven("c")(known) is known
    assert proven("a")(known).preferred(NOW) == "a"


def test_proven_ends_cooldown_and_probe() -> None:
    after = proven("a")(state(cooling("a", -1), preferred="b", probing="a"))

    assert after == Routing(preference=Preferred("a", NOW, NOW + 1800))


def test_proven_without_prefer_still_ends_the_cooldown() -> None:
    after = proven("a", prefer=False)(state(cooling("a"), preferred="b"))

    assert after.cooldowns == {}
    assert after.preferred(NOW) == "b"


def test_proven_keeps_a_newer_cooldown() -> None:
    """The request began before another one failed."""
    known = state(cooling("a"))

    assert proven("a", began=NOW - 51)(known) is known
    assert proven("a", began=NOW - 49)(known).cooldowns == {}


def test_proven_ignores_an_unknown_provider() -> None:
    assert proven("z")(Routing()) == Routing()


def cooled(provider: str, duration_s: float) -> Change:
    return changes.cooled(provider, "HTTP 503", NOW, duration_s, "r2")


def test_cooled_clears_the_preference() -> None:
    after = cooled("b", 300)(state(preferred="b", probing="b"))

    assert after == Routing(cooldowns={"b": Cooldown("b", "HTTP 503", NOW, NOW + 300, "r2")})


def test_cooled_keeps_the_preference_of_another() -> None:
    assert cooled("a", 300)(state(preferred="b")).preferred(NOW) == "b"


@pytest.mark.parametrize(("duration_s", "reason"), [(99, "HTTP 500"), (100, "HTTP 500"), (101, "HTTP 503")])
def test_cooled_keeps_the_later_end(duration_s: float, reason: str) -> None:
    """A second, shorter cooldown does not shorten the first."""
    after = cooled("a", duration_s)(state(cooling("a", 100)))

    assert after.cooldowns["a"].until == NOW + max(duration_s, 100)
    assert after.cooldowns["a"].reason == reason


def test_phases() -> None:
    known = state(cooling("a", 1), cooling("b", 0))

    assert [known.phase(provider, NOW) for provider in ABC] == [
        CircuitPhase.COOLING,
        CircuitPhase.HALF_OPEN,
        CircuitPhase.HEALTHY,
    ]


def test_probe_taken_grants_the_first_holder() -> None:
    known = state(cooling("a", -1))
    taken = changes.probe_taken("a", "r1:1", NOW, 65)(known)

    assert taken.probes == {"a": Lease("a", "r1:1", NOW + 65)}
    assert changes.probe_taken("a", "r2:1", NOW, 65)(taken) is taken
    assert changes.probe_taken("a", "r2:1", NOW + 65, 65)(taken).probes["a"].holder == "r2:1"


@pytest.mark.parametrize("known", [Routing(), state(cooling("a", 1))], ids=["healthy", "cooling"])
def test_probe_taken_needs_a_half_open_provider(known: Routing) -> None:
    assert changes.probe_taken("a", "r1:1", NOW, 65)(known) is known


def test_probe_returned_needs_the_holder() -> None:
    known = state(cooling("a", -1), probing="a")

    assert changes.probe_returned("a", "r2:9")(known) is known
    assert changes.probe_returned("a", "r1:1")(known).probes == {}


def test_reset_ends_the_cooldown_and_a_lower_preference() -> None:
    known = state(cooling("b"), preferred="c", probing="b")

    assert changes.reset("b", NOW, ABC)(known) == Routing()
    assert changes.reset("b", NOW, ABC)(state(cooling("b"), preferred="a")).preferred(NOW) == "a"


def test_cleared_ends_force_and_preference_and_keeps_cooldowns() -> None:
    known = state(cooling("a"), force=force("c"), preferred="b")

    assert changes.cleared(NOW)(known) == state(cooling("a"))


def test_forced_and_cleared_keep_newer_acts() -> None:
    """Applied late, an older force or clear gives way, beyond the tolerated clock skew."""
    newer = Routing(force=Force("a", NOW + 60, NOW + 1860), preference=Preferred("b", NOW + 60, NOW + 1860))
    skewed = Routing(force=Force("a", NOW + 1, NOW + 1801))

    assert changes.forced("c", NOW, 1800)(newer) == newer
    assert changes.cleared(NOW)(newer) == newer
    assert changes.forced("c", NOW, 1800)(skewed).forced(NOW) == "c"
    assert changes.cleared(NOW)(skewed) == Routing()


def test_reset_keeps_newer_cooldown_and_preference() -> None:
    """Set by a later failure, or by a later answer of a lower provider."""
    failed_since = state(cooling("a"), preferred="b")
    stepped_in_since = Routing(preference=Preferred("b", NOW, NOW + 1800))

    assert changes.reset("a", NOW - 60, ABC)(failed_since) == failed_since
    assert changes.reset("a", NOW - 60, ABC)(stepped_in_since).preferred(NOW) == "b"
    assert changes.reset("a", NOW - 1, ABC)(stepped_in_since) == Routing()


def test_merged_keeps_the_newer_force_and_the_later_ends() -> None:
    shared = Routing(
        Force("a", NOW - 10, NOW + 10),
        Preferred("a", NOW, NOW + 5),
        {"a": cooling("a", 10), "b": cooling("b", 30)},
        {"a": Lease("a", "r1:1", NOW + 5)},
    )
    local = Routing(
        Force("b", NOW - 5, NOW + 1),
        Preferred("b", NOW, NOW + 9),
        {"a": cooling("a", 20), "b": cooling("b", 20), "c": cooling("c", 5)},
        {"a": Lease("a", "r2:1", NOW + 9), "c": Lease("c", "r2:2", NOW + 9)},
    )

    both = changes.merged(shared, local)

    assert both.forced(NOW) == "b"
    assert both.preference == shared.preference
    assert {name: entry.until - NOW for name, entry in both.cooldowns.items()} == {"a": 20, "b": 30, "c": 5}
    assert {name: lease.holder for name, lease in both.probes.items()} == {"a": "r1:1", "c": "r2:2"}
    assert changes.merged(Routing(), local) == local


def test_cooled_keeps_the_begin_of_an_outage() -> None:
    """Failed probes prolong it; an answer ends it."""
    failed = cooled("a", 300)(state(cooling("a", -1)))
    assert failed.cooldowns["a"].since == NOW
    assert failed.cooldowns["a"].outage_since == NOW - 50
    again = cooled("a", 400)(failed)
    assert again.cooldowns["a"].outage_since == NOW - 50
    answered = changes.proven("a", NOW, NOW, 1800, ("a", "b"), prefer=True)(again)
    assert cooled("a", 300)(answered).cooldowns["a"].outage_since == NOW


def undone(act: Change, before: Routing, provider: str = "a", since: Change = lambda known: known) -> Routing:
    """Take an act back, a minute later and after other changes."""
    after = act(before)
    stood, stands = (routing.find_overrides(known, provider) for known in (before, after))
    return changes.restored(provider, stood, stands, NOW + 60)(since(after))


@pytest.mark.parametrize(
    ("before", "act"),
    [
        (Routing(), changes.forced("a", NOW, 300)),
        (state(force=force("b")), changes.forced("a", NOW, 300)),
        (state(force=force("b")), changes.cleared(NOW)),
        (state(cooling("b")), changes.cooled("a", "set", NOW, 300, "admin")),
        (state(cooling("a"), cooling("b")), changes.cooled("a", "set", NOW, 300, "admin")),
        (state(cooling("a")), changes.reset("a", NOW, ABC)),
        (state(cooling("a", -1)), changes.reset("a", NOW, ABC)),
    ],
)
def test_restored_takes_an_act_back(before: Routing, act: Change) -> None:
    assert act(before) != before
    assert undone(act, before) == before


def test_restored_leaves_what_has_changed_since() -> None:
    act, newer = changes.forced("a", NOW, 300), changes.forced("b", NOW + 30, 300)
    assert undone(act, Routing(), since=newer) == newer(act(Routing()))


def test_restored_does_not_bring_back_a_force_that_has_ended() -> None:
    assert undone(changes.cleared(NOW), state(force=force("b", 30))) == Routing()
