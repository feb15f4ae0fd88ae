"""Bounds, predictions and sentences, from numbers that can be checked by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from bench.verdict import CORES, WINDOW, Change, Observed, Pool, Stage, bounds, judge, predict
from bench.verdict.machine import cores_free, cores_usable, idle_seconds, queued_for_others, thread_times
from bench.verdict.meter import _mended
from dali_pipes.stages import StageTime

POOLS = (Pool("workers", 2, setting="threads"), Pool("graph", 1), Pool("consumer", 1))


def observed(*stages: Stage, rate: float = 25.0, **changes: object) -> Observed:
    usual: dict[str, object] = {"stages": stages, "pools": POOLS, "cores": 4.0, "rate": rate}
    return Observed(**(usual | changes))  # type: ignore[arg-type]


READ = Stage("read", 0.005, 0.055, "workers")
DECODE = Stage("decode", 0.020, 0.0, "workers")
GRAPH = Stage("graph", 0.005, 0.005, "graph", helpers=0.010)
STEP = Stage("step", 0.001, 0.019, "consumer")


def test_each_resource_bounds_the_rate_by_what_a_sample_asks_of_it() -> None:
    found = bounds(observed(READ, DECODE, GRAPH, STEP, in_flight=3))
    assert found == pytest.approx(
        {
            CORES: 4 / 0.041,
            "workers": 2 / 0.080,
            "graph": 1 / 0.010,
            "consumer": 1 / 0.020,
            WINDOW: 3 / (0.040 + 0.010 + 0.020),
        }
    )


def test_the_verdict_names_the_largest_stage_of_the_lowest_bound_and_what_comes_next() -> None:
    verdict = judge(observed(READ, DECODE, GRAPH, STEP))
    assert (verdict.stage, verdict.resource) == ("read", "workers")
    # Without reading the workers could do 100 a second, the step only 50.
    assert verdict.without == pytest.approx(50)
    assert verdict.loss == pytest.approx(0.5)
    assert (verdict.next_stage, verdict.next_resource) == ("step", "consumer")
    assert verdict.explained == pytest.approx(1)
    assert "Reading from storage binds" in str(verdict) and "threads=" in str(verdict)
    json.dumps(verdict.as_dict(), allow_nan=False)


def test_the_cores_bind_where_cpu_time_is_short_and_more_threads_are_not_advised() -> None:
    verdict = judge(observed(DECODE, GRAPH, STEP, cores=0.5, rate=0.5 / 0.036))
    assert (verdict.stage, verdict.resource) == ("decode", CORES)
    assert verdict.without == pytest.approx(0.5 / 0.016)
    assert "threads=" not in str(verdict)
    assert "Twice the cores: " in str(verdict)


def test_a_step_that_binds_acquits_the_data_and_tells_which_threads_are_spare() -> None:
    pools = (Pool("workers", 8, setting="threads"), *POOLS[1:])
    verdict = judge(observed(DECODE, GRAPH, Stage("step", 0.0, 0.1, "consumer"), rate=10, pools=pools))
    assert (verdict.stage, verdict.resource) == ("step", "consumer")
    assert str(verdict).startswith("The data are not the limit: the training step is")
    assert "More threads than 8 would not help; 1 would do." in str(verdict)


def test_with_one_batch_under_way_the_stages_take_turns() -> None:
    serial = observed(Stage("fetch", 0.01, 0.02, "workers"), STEP, rate=20, in_flight=1, window="num_workers")
    serial = dataclasses.replace(serial, pools=(Pool("workers", 1), Pool("consumer", 1)))
    verdict = judge(serial)
    assert (verdict.stage, verdict.resource) == ("fetch", WINDOW)
    assert verdict.without == pytest.approx(50)
    assert predict(serial, Change(in_flight=2)) == pytest.approx(1 / 0.03)
    assert "num_workers higher by one: 33.3 samples/s" in str(verdict)


def test_a_prediction_scales_what_was_measured_by_the_lowest_bound() -> None:
    # A tenth is lost between the stages: that stays so.
    seen = observed(READ, DECODE, STEP, rate=0.9 * 25)
    assert predict(seen, Change()) == pytest.approx(22.5)
    assert predict(seen, Change(threads={"workers": 3})) == pytest.approx(0.9 * 37.5)
    assert predict(seen, Change(threads={"workers": 64})) == pytest.approx(0.9 * 50)
    assert predict(seen, Change(stages=(READ.less(blocked=0.04),))) == pytest.approx(0.9 * 50)
    assert predict(seen, Change(stages=(READ.less(blocked=-0.02),))) == pytest.approx(0.9 * 20)
    assert predict(seen, Change(stages=(READ.scaled(0.5),), cores=0.5)) == pytest.approx(0.9 * 0.5 / 0.0235)
    assert predict(seen, Change(stages=tuple(s.scaled(0) for s in (READ, DECODE, STEP)))) == math.inf


def test_alternatives_measured_elsewhere_are_predicted() -> None:
    copies = Change("small copies", stages=(Stage("read", 0.001, 0.005, "workers"), DECODE.scaled(0.25)))
    verdict = judge(observed(READ, DECODE, STEP), [copies])
    assert verdict.alternatives == {"small copies": pytest.approx(50)}
    assert "small copies: 50 samples/s, 2.00 times as many." in str(verdict)


def test_waiting_for_other_programs_holds_a_thread_and_goes_with_its_cpu_time() -> None:
    stage = Stage("decode", 0.02, 0.01, "workers", queued=0.04)
    assert stage.held == pytest.approx(0.07)
    assert stage.on_cores == pytest.approx(0.02)
    assert stage.less(cpu=0.015).held == pytest.approx(0.005 + 0.01 + 0.01)
    assert stage.less(cpu=1, blocked=1).held == 0


def test_only_one_stage_leaves_nothing_to_compare_with() -> None:
    verdict = judge(observed(STEP, rate=50))
    assert (verdict.without, verdict.loss, verdict.next_stage) == (None, None, "")
    assert "Nothing besides" in str(verdict)


def test_what_no_clock_explains_is_said() -> None:
    verdict = judge(observed(READ, DECODE, STEP, rate=10, ready=0.5, window="prefetch"))
    assert verdict.explained == pytest.approx(0.4)
    assert "Only 40%" in str(verdict) and "a higher prefetch" in str(verdict)


def test_engines_of_a_device_bound_the_rate_but_do_not_lengthen_the_way() -> None:
    engine = Pool("nvdec", 2, device=True)
    seen = observed(GRAPH, STEP, Stage("decode", 0, 0.1, "nvdec"), rate=20, in_flight=2, pools=(*POOLS, engine))
    assert bounds(seen)[WINDOW] == pytest.approx(2 / 0.03)
    assert judge(seen).stage == "decode"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Stage("read", -0.1),
        lambda: Stage("read", math.nan),
        lambda: Pool("workers", 0),
        lambda: observed(STEP, rate=0),
        lambda: observed(STEP, cores=0),
        lambda: observed(Stage("read", 1, pool="nobody")),
        lambda: judge(observed(Stage("read", 0, pool="workers"))),
    ],
)
def test_impossible_numbers_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError):
        wrong()  # type: ignore[operator]


def test_on_an_idle_machine_all_cores_are_free() -> None:
    assert cores_free(cores=16, used=0.5, idle=15.5, stretch=1, threads=4) == 16


def test_a_pipeline_that_fills_the_machine_has_the_whole_of_it() -> None:
    assert cores_free(cores=2, used=2, idle=0, stretch=4, threads=8) == 2
    assert queued_for_others(cores=2, used=2, idle=0) == 0


def test_beside_busy_programs_more_threads_get_a_larger_share() -> None:
    # One thread of ours among four that compute on two cores has half a core; of three, three sixths of two.
    alone = {"cores": 2, "used": 0.5, "idle": 0, "stretch": 2}
    assert cores_free(**alone, threads=1) == pytest.approx(0.5)
    assert cores_free(**alone, threads=3) == pytest.approx(1.0)
    assert queued_for_others(cores=2, used=0.5, idle=0) == pytest.approx(0.75)


def test_cpu_time_of_reading_packets_is_put_where_their_wall_time_is() -> None:
    clocks = {"decode": StageTime(1.0, 1.5, 0.0, 3), "read": StageTime(2.0, 0.1, 0.0, 3), "plan": StageTime(1.0, 0.5)}
    mended = _mended(clocks)
    assert (mended["decode"].cpu, mended["decode"].blocked) == (1.0, 0.0)
    assert (mended["read"].cpu, mended["read"].blocked) == (0.6, pytest.approx(1.4))
    assert mended["plan"] == clocks["plan"]


def test_the_machine_can_be_read() -> None:
    assert 0 < cores_usable() <= 4096
    assert idle_seconds() > 0
    assert sum(one.cpu for one in thread_times().values()) > 0
    assert thread_times(-1) == {}
