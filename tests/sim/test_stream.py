"""2,000 stories of the delta stream, and what is planted in its cores: each mutant breaks a story.

Told by `python -m tests.sim`, a process for each share: sets need a fixed order there.
"""

import subprocess
import sys

import pytest

from tests.sim.stream_mutants import MUTANTS

SEEDS = 1200
SHARE = 100

FOUND_BY: dict[str, int] = {
    "pending_survives_a_stream": 20,
    "another_lineage_resumes": 5,
    "asked_digests_are_not_awaited": 11,
    "audit_never_run": 1,
    "audit_of_half_the_buckets": 15,
    "barrier_before_the_outbox": 85,
    "changed_forgets_removals": 1,
    "continued_frames_end_early": 141,
    "coverage_of_the_fastest": 8,
    "digest_not_checked": 91,
    "doubt_goes_on_applying": 298,
    "effective_is_head": 1,
    "effective_is_the_first_touch": 1,
    "endpoints_concern_their_node_alone": 5,
    "fence_goes_at_once": 39,
    "frames_without_changes_of_revision_are_repeated": 2,
    "gained_is_dropped": 1,
    "identity_that_comes_and_goes": 169,
    "interrupted_repair_is_trusted": 5,
    "leave_keeps_endpoints": 2,
    "leave_takes_own_endpoints": 9,
    "left_after_gained": 6,
    "left_peers_stay_as_subjects": 60,
    "left_span_is_guarded": 52,
    "log_effective_passes_an_event": 3,
    "log_effective_passes_flicker": 19,
    "merged_removal_of_the_last_incarnation": 7,
    "moved_out_is_not_removed": 17,
    "moves_unsettle_nobody": 6,
    "patch_is_not_touched": 2,
    "patched_from_the_new_span": 5,
    "pieces_not_touched": 10,
    "policies_are_local": 1,
    "repair_counts_before_its_barrier": 4,
    "repair_replaces_everything": 1,
    "repair_with_guards": 2,
    "resume_from_the_wrong_cut": 2,
    "resume_inside_a_tick": 24,
    "sent_counts_as_applied": 1,
    "shared_peers_not_cleared": 2,
    "snapshot_below_the_floor": 226,
    "snapshot_not_verified": 1,
    "structural_after_touches": 4,
    "structural_writes_ignored": 1,
    "the_last_touch_of_a_tick": 4,
    "told_not_cleared_by_moves": 106,
    "touch_forgets_the_first": 1,
    "touched_from_the_tick_on": 2,
    "unknown_history_proves": 3,
    "unsettled_not_touched": 6,
    "watermark_after_an_unfence": 81,
    "what_was_before_is_not_concerned": 13,
    "zombies_are_vouched_for_at_head": 8,
}
"""The first seed that finds a mutant, where 0 does not: one less than what `--mutants` printed."""

HUNTED = 1
"""Stories, from that seed on."""


def tell(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.sim", "--processes", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("first", range(0, SEEDS, SHARE))
@pytest.mark.timeout(600)
def test_every_invariant_holds_at_every_step(first: int) -> None:
    told = tell("--first", first, "--seeds", SHARE)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("name", [mutant.name for mutant in MUTANTS])
@pytest.mark.timeout(120)
def test_a_mutant_is_found(name: str) -> None:
    told = tell("--mutants", name, "--first", FOUND_BY.get(name, 0), "--seeds", HUNTED)
    assert told.returncode == 0, told.stdout
