"""Means, intervals and paired tests: known numbers, and what they say of infinite, missing and few scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from napari_medt.measure import interval, paired_test, summarise

INF = math.inf
scores = st.lists(st.one_of(st.none(), st.just(INF), st.floats(0, 100)), max_size=12)


class TestSummary:
    def test_known(self):
        found = summarise([0.5, 0.7, None, 0.9])
        assert (found.cases, found.infinite, found.not_applicable) == (4, 0, 1)
        assert found.mean == found.finite_mean == pytest.approx(0.7)
        assert found.median == 0.7
        assert 0.5 <= found.low < 0.7 < found.high <= 0.9

    def test_infinite_scores_are_kept_and_counted(self):
        found = summarise([1.0, INF, 3.0])
        assert (found.mean, found.finite_mean, found.infinite, found.median) == (INF, 2, 1, 3)
        assert 1 <= found.low <= found.high <= 3
        assert summarise([1.0, INF]).median == INF

    def test_nothing_applies(self):
        found = summarise([None, None])
        assert (found.cases, found.not_applicable) == (2, 2)
        assert {found.mean, found.median, found.finite_mean, found.low, found.high} == {None}

    def test_all_infinite(self):
        found = summarise([INF, INF])
        assert (found.mean, found.median, found.infinite, found.finite_mean, found.low) == (INF, INF, 2, None, None)

    @settings(max_examples=25, deadline=None)
    @given(scores)
    def test_never_nan_and_every_case_counted(self, values):
        found = summarise(values)
        numbers = [found.mean, found.median, found.finite_mean, found.low, found.high]
        assert not any(number is not None and math.isnan(number) for number in numbers)
        assert found.cases == len(values)
        assert found.infinite == values.count(INF)
        assert found.not_applicable == values.count(None)
        if found.low is not None:
            spread = 1e-9 * (1 + abs(found.finite_mean))
            finite = [value for value in values if value is not None and value < INF]
            assert min(finite) - spread <= found.low <= found.high <= max(finite) + spread


class TestInterval:
    @pytest.mark.parametrize("method", ["bca", "percentile"])
    def test_near_the_normal_one_for_many_values(self, method, rng):
        values = rng.normal(3, 2, 400)
        low, high = interval(values, method=method)
        half = 1.96 * values.std(ddof=1) / 20
        assert low == pytest.approx(values.mean() - half, abs=0.05)
        assert high == pytest.approx(values.mean() + half, abs=0.05)

    def test_covers_the_truth_about_as_often_as_it_says(self, rng):
        covered = sum(low <= 0.5 <= high for low, high in (interval(rng.random(25), seed=1) for _ in range(60)))
        assert 50 <= covered <= 60

    def test_seed(self, rng):
        values = rng.random(12)
        assert interval(values, seed=3) == interval(values, seed=3)
        assert interval(values, seed=3) != interval(values, seed=4)

    def test_wider_for_more_confidence(self, rng):
        values = rng.random(20)
        narrow, wide = interval(values, confidence=0.8), interval(values, confidence=0.99)
        assert wide[0] < narrow[0] < narrow[1] < wide[1]

    @pytest.mark.parametrize("values", [[], [0.5]])
    def test_too_few(self, values):
        assert interval(values) is None

    def test_all_equal_and_nearly_all_equal(self):
        assert interval([0.25] * 9) == (0.25, 0.25)
        low, high = interval([1.0, 1.0, 1.0, 1.0, 0.0])
        assert 0 <= low <= high <= 1


class TestPaired:
    def test_is_scipys_wilcoxon(self, rng):
        first, second = rng.random(15), rng.random(15)
        found = paired_test(first, second)
        assert found.wilcoxon_p == pytest.approx(wilcoxon(first, second).pvalue)
        assert found.difference == pytest.approx((first - second).mean())
        assert (found.pairs, found.ties, found.left_out, found.notes) == (15, 0, 0, ())

    def test_swapping_turns_the_sign_only(self, rng):
        first, second = rng.random(12), rng.random(12) + 0.2
        one, two = paired_test(first, second), paired_test(second, first)
        assert one.difference == pytest.approx(-two.difference)
        assert one.wilcoxon_p == pytest.approx(two.wilcoxon_p)
        assert one.bootstrap_p == pytest.approx(two.bootstrap_p, abs=0.02)

    def test_a_clear_difference_and_none(self, rng):
        base = rng.random(20)
        better = paired_test(base + 0.1 + 0.01 * rng.random(20), base)
        assert better.wilcoxon_p < 1e-3
        assert better.bootstrap_p < 1e-3
        assert better.low > 0.09
        noise = paired_test(base + rng.normal(0, 0.1, 20) * np.array([1, -1] * 10), base)
        assert noise.bootstrap_p > 0.05

    def test_ties_are_counted(self):
        found = paired_test([1.0, 0.5, INF, *[0.9] * 6], [1.0, 0.5, INF, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        assert (found.pairs, found.ties) == (9, 3)
        assert found.wilcoxon_p == pytest.approx(2 / 2**6)

    def test_too_few_pairs_that_differ_give_no_p(self):
        found = paired_test([0.9] * 5, [0.1, 0.2, 0.3, 0.4, 0.5])
        assert (found.wilcoxon_p, found.bootstrap_p) == (None, None)
        assert found.difference == pytest.approx(0.6)
        assert found.notes == ("Only 5 pairs differ, and a test needs at least 6",)

    def test_infinite_in_one_only_is_ranked_and_not_averaged(self):
        first, second = [INF, 2, 3, 4, 5, 6, 7], [1, 1, 1, 1, 1, 1, 1]
        found = paired_test(first, second)
        assert found.difference == pytest.approx(3.5)
        assert found.wilcoxon_p == pytest.approx(2 / 2**7)
        assert found.bootstrap_p is None
        assert "1 pairs are infinite in one model only" in found.notes[0]

    def test_what_does_not_apply_is_left_out_and_said(self):
        found = paired_test([None, 0.5, 0.5], [0.5, None, 0.5])
        assert (found.pairs, found.left_out, found.ties) == (1, 2, 1)
        assert "2 of 3 cases are left out" in found.notes[0]

    def test_nothing_to_compare(self):
        found = paired_test([], [])
        assert (found.pairs, found.difference, found.wilcoxon_p, found.bootstrap_p) == (0, None, None, None)

    def test_unequal_numbers(self):
        with pytest.raises(ValueError, match="2 and 1 scores"):
            paired_test([1, 2], [1])
