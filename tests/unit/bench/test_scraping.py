import os
import time

from bench.scraping import cpu_seconds, parse_sums

PAGE = """\
# HELP deltaplane_cni_add_stage_seconds Parts of CNI ADD
deltaplane_cni_add_stage_seconds_bucket{le="0.1",stage="link"} 3.0
deltaplane_cni_add_stage_seconds_count{stage="link"} 3.0
deltaplane_cni_add_stage_seconds_sum{stage="link"} 0.0125
deltaplane_apply_seconds_sum 2.5e-05
python_gc_objects_collected_total{generation="0"} 5.0
"""


def test_sums_are_found_by_name_and_label() -> None:
    assert parse_sums(PAGE) == {
        ("cni_add_stage_seconds", "link"): 0.0125,
        ("apply_seconds", ""): 2.5e-05,
    }


def test_cpu_time_of_a_process_grows_while_it_works() -> None:
    before = cpu_seconds(os.getpid())
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    assert cpu_seconds(os.getpid()) >= before + 0.01
