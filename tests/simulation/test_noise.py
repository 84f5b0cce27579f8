"""The exogenous noise: uniform, independent, and a function of its place alone."""

import numpy as np
import pytest
from scipy import stats

from habitlab.simulation.noise import Noise


@pytest.mark.parametrize("counters", [(np.arange(50_000),), (np.arange(250)[:, None], np.arange(200))])
def test_draws_are_uniform_and_do_not_remember_their_neighbours(counters):
    draws = Noise(3).uniform("test", *counters).ravel()
    assert stats.kstest(draws, "uniform").pvalue > 0.001
    for lag in (1, 2, 7, 200):
        assert abs(np.corrcoef(draws[:-lag], draws[lag:])[0, 1]) < 4.5 / np.sqrt(len(draws))


def test_seeds_and_streams_are_independent():
    index = np.arange(50_000)
    draws = [Noise(seed).normal(stream, index) for seed in (0, 1) for stream in ("a", "b")]
    apart = np.corrcoef(draws)[~np.eye(4, dtype=bool)]
    assert np.abs(apart).max() < 4.5 / np.sqrt(len(index))


def test_a_draw_made_alone_is_the_draw_made_among_others():
    noise = Noise(5)
    together = noise.uniform("test", np.arange(20)[:, None], np.arange(30))
    assert noise.uniform("test", 7, 11)[0] == together[7, 11]
    assert not np.array_equal(noise.uniform("test", 7, 11), noise.uniform("test", 11, 7))


def test_pick_draws_in_proportion():
    counts = np.bincount(Noise(0).pick((1, 2, 5), "test", np.arange(40_000)), minlength=3)
    assert stats.chisquare(counts, 40_000 * np.array([1, 2, 5]) / 8).pvalue > 0.001
