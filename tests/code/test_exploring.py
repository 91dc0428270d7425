"""A first place drawn by chance, with the chance of everything that is shown."""

from collections import Counter

import numpy as np
import pytest

from aftersales.runtime.exploring import CANDIDATES, Place, ordered

SCORES = [9.0, 8.5, 8.0, 3.0, 2.5, 2.0, 1.0, 0.5, 0.2, 0.1, 0.0, -5.0]


def test_no_temperature_is_the_order() -> None:
    assert ordered(SCORES, 3, 0.0, 0.99) == [Place(0, 1.0), Place(1, 1.0), Place(2, 1.0)]
    assert ordered([], 3, 1.0, 0.5) == []
    assert len(ordered(SCORES[:2], 5, 1.0, 0.5)) == 2


@pytest.mark.parametrize("k", [1, 4, 12])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 50.0])
def test_each_propensity_is_the_share_with_which_it_is_shown(k: int, temperature: float) -> None:
    draws = 2_000
    seen: Counter[tuple[int, int]] = Counter()
    said: dict[tuple[int, int], float] = {}
    for drawn in (np.arange(draws) + 0.5) / draws:  # evenly spread, so that shares are exact to one in two thousand
        places = ordered(SCORES, k, temperature, float(drawn))
        assert len({place.rank for place in places}) == k
        for position, place in enumerate(places):
            seen[position, place.rank] += 1
            assert said.setdefault((position, place.rank), place.propensity) == pytest.approx(place.propensity)
    for shown, share in said.items():
        assert seen[shown] / draws == pytest.approx(share, abs=2 / draws)
        assert 0 < share <= 1
    assert max(rank for position, rank in said if position == 0) < CANDIDATES


def test_extreme_scores_and_draws_keep_the_chances_above_zero() -> None:
    for scores in ([1e30, 1.0, 0.0], [5.0, 5.0, 5.0], [3e38, -3e38]):
        for drawn in (0.0, 0.5, 1 - 2**-53):
            for temperature in (1e-6, 1.0, 100.0):
                places = ordered(scores, 3, temperature, drawn)
                assert sorted(place.rank for place in places) == list(range(len(scores)))
                assert all(0 < place.propensity <= 1 for place in places)
