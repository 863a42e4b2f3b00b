"""S12: hours of polling under a fake clock; `make bench-day` goes on for a day with 50 sources."""

from __future__ import annotations

from bench.day import measure


def test_s12_memory_descriptors_and_threads_stay_flat_over_simulated_hours() -> None:
    day = measure(hours=7, sources=6)
    assert day.entries >= 6 * 2  # each feed brought something new twice at least
    assert day.facts == day.entries
    assert day.drift <= 0.05
    assert len(set(day.descriptors[4:])) == 1
    assert len(set(day.threads[4:])) == 1
