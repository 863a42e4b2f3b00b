"""C2: a real daemon, killed at random moments for a minute; `make soak` goes on for longer."""

from bench.soak import soak


def test_c02_random_kills_for_a_minute_lose_nothing_and_do_nothing_twice() -> None:
    found = soak(seconds=60, news=2, seed=1)
    assert (found.lost, found.twice, found.bad_releases) == (0, 0, 0), found.said
    assert found.kills >= 3
    assert found.promoted > 0
