"""The nine races of revocation that must be impossible, each with the tests that fail when its guard is taken away.

| race | test | guard | what stands there |
|---|---|---|---|
| 1 a row read before the news, remembered after it | tests/test_verification.py::test_a_row_read_before_the_news_admits_nobody_after_it | proxy/memory.py:find_state | the state only if no news of its subjects came since its read |
| | the same | proxy/memory.py:__post_init__ | subjects: the key, its ancestors, its owner, not the key alone |
| | the same | proxy/keys/reader.py:_read | news is numbered before the statement is sent |
| | the same, while hashing | proxy/verification.py:_verify_slowly | `continue` after the hash: look at the state again |
| | tests/test_verification.py::test_news_that_overtakes_a_read_counts_without_trust_too | proxy/memory.py:find_state | the same comparison in read-through |
| 2 admitted, then revoked, before the connection: claiming | tests/races/test_admitted_then_revoked.py::test_a_call_whose_key_dies_while_its_session_is_claimed_is_not_sent | proxy/forwarding.py:forward | `wait_open` before anything is sent |
| 2 before the connection: in doubt when it stands | tests/races/test_admitted_then_revoked.py::test_a_call_whose_key_is_in_doubt_when_the_connection_stands_is_not_sent | proxy/upstream.py:_exchange | the gate after dialling |
| 2 before the connection: dialling | tests/races/test_admitted_then_revoked.py::test_a_call_that_is_still_dialling_ends_with_its_key | proxy/relay.py:_end | `_abort` first |
| 2 between headers and body: whole answers | tests/races/test_admitted_then_revoked.py::test_what_arrives_while_a_key_is_in_doubt_never_reaches_the_client | proxy/relay.py:carry | `wait_open` once the body is here |
| 2 between headers and body: large ones | the same | proxy/relay.py:_stream | `wait_open` before each piece |
| 2 between headers and body: heads of streams | the same | proxy/relay.py:_stream_events | `wait_open` before the head goes out |
| 2 between headers and body: events | the same | proxy/relay.py:_pump | `wait_open` before each chunk |
| 2 between headers and body: silence | tests/races/test_admitted_then_revoked.py::test_an_answer_that_stops_after_its_head_ends_with_its_key | proxy/relay.py:_end | `_abort` first |
| 2 while the body is uploading, to us | tests/races/test_admitted_then_revoked.py::test_a_body_still_coming_when_its_key_dies_is_not_forwarded | proxy/front_door.py:_walk | verified again once the body was read |
| 2 while the body is uploading, to the upstream | tests/races/test_admitted_then_revoked.py::test_a_body_on_its_way_to_the_upstream_is_cut_off_when_its_key_dies | proxy/relay.py:_end | `_abort` first |
| 2 queued behind a pipelined request | tests/races/test_admitted_then_revoked.py::test_a_request_queued_behind_another_is_judged_when_its_turn_comes | proxy/memory.py:find_state | no state that news has put in doubt |
| 3 a session made as its key dies | tests/races/test_dying_sessions.py::test_no_client_learns_of_a_session_before_it_is_bound | proxy/forwarding.py:_settle_session | `await _bind` before the id is put into the answer |
| | tests/races/test_dying_sessions.py::test_a_session_bound_after_its_key_died_is_ended_and_told_to_nobody | proxy/forwarding.py:_settle_session | asked again after binding; if ended, cleaned up |
| | tests/races/test_dying_sessions.py::test_a_session_bound_while_its_key_was_in_doubt_is_ended_once_the_row_is_read | proxy/revocation.py:_follow_news | sessions of what was judged are cleaned up after the judging |
| 4 an old session's clean-up and its replacement | tests/races/test_dying_sessions.py::test_a_session_is_not_replaced_while_it_is_being_ended | proxy/session_store.py:bind | a row that stands is never overwritten |
| | tests/races/test_replaced_sessions.py::test_a_session_listed_as_lost_is_not_claimed_once_its_id_is_another_key_s | proxy/session_store.py:claim_dead | claimed by hash and instant of making |
| | tests/races/test_replaced_sessions.py::test_a_claimant_whose_claim_lapsed_does_not_forget_what_stands_there_now | proxy/session_store.py:forget_claimed | only what this instance has claimed |
| 5 two instances, one session | tests/races/test_dying_sessions.py::test_a_session_that_one_instance_is_ending_is_left_alone_by_the_others | proxy/session_store.py:claim_dead | only what nobody has claimed |
| | tests/test_session_store.py::test_a_session_another_instance_is_claiming_is_passed_over | proxy/session_store.py:claim_dead | SKIP LOCKED |
| 5 a claimant that crashes | tests/races/test_dying_sessions.py::test_an_instance_that_crashes_before_the_upstream_answered_leaves_the_session_to_another | proxy/session_store.py:claim_dead | a claim lapses |
| | the same | proxy/session_cleanup.py:_end | forgotten after the answer |
| | tests/test_session_cleanup.py::test_a_session_that_may_still_live_is_tried_again_a_bounded_number_of_times | proxy/session_cleanup.py:_end | forgotten after 2xx, 404 and 405 only |
| 6 a flushed memory | tests/races/test_trust_and_lineage.py::test_thousands_who_wait_for_a_flushed_memory_cost_no_more_reads_than_there_are_keys | proxy/gathering.py:ask | one batch waiting, one statement running |
| 7 a process that slept | tests/races/test_trust_and_lineage.py::test_a_chunk_that_lay_waiting_while_the_process_slept_is_not_relayed | proxy/sessions.py:judge_flow | the lease is compared before every chunk |
| | tests/races/test_trust_and_lineage.py::test_whoever_comes_first_after_the_process_slept_is_judged_by_the_time_of_waking | proxy/verification.py:_recall | the lease is compared at every admission |
| | the same | proxy/verification.py:_get_state | closed is closed |
| | tests/races/test_trust_and_lineage.py::test_boot_time_is_the_clock_that_goes_on_while_the_machine_sleeps | proxy/clock.py:boot | CLOCK_BOOTTIME |
| | tests/test_listener.py::test_a_wall_clock_that_jumps_loses_it_once | proxy/listener.py:_beat | the wall clock is held against boot time |
| 8 a cancelled request and its hashing permit | tests/keys/test_hashing.py::test_a_caller_who_leaves_does_not_free_the_permit_while_the_thread_works | proxy/keys/hashing.py:_work | the permit is the thread's: shielded, given back when it is done |
| 9 a child minted as its parent is revoked | tests/races/test_trust_and_lineage.py::test_a_child_minted_while_its_parent_is_being_revoked_waits_for_it_and_is_refused | proxy/migrations/0003_handles.sql | `FOR SHARE` of the parent before a child is inserted |
| | tests/races/test_trust_and_lineage.py::test_a_revocation_sent_while_a_child_is_being_minted_waits_for_it_and_takes_it_along | proxy/migrations/0001_keys.sql | the cascade |
| | tests/keys/test_record.py::test_every_ancestor_has_to_be_active | proxy/keys/record.py:_lineage | every ancestor must be active, whatever the child's own row says |
| | tests/races/test_trust_and_lineage.py::test_a_revocation_that_waits_is_not_passed_by_changes_that_come_later | proxy/keys/callers.py:hold | locks that exclude each other, and so queue |
| | tests/races/test_trust_and_lineage.py::test_a_revocation_outlasts_what_other_statements_are_given | proxy/keys/store.py:revoke_row | a deadline of its own |
"""  # noqa: E501 - a table

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def list_named(column: str) -> set[tuple[str, str]]:
    """(file, function) of everything the table names in this way."""
    return set(re.findall(column, __doc__ or ""))


def test_what_the_table_names_is_there() -> None:
    named = list_named(r"(tests/[\w/]+\.py)::(\w+)") | list_named(r"(proxy/[\w/]+\.py):(\w+)")
    missing = {(file, name) for file, name in named if f"def {name}(" not in (ROOT / file).read_text()}
    assert not missing
    assert {row[0] for row in re.findall(r"^\| ([1-9])", __doc__ or "", re.MULTILINE)} == set("123456789")


def test_the_table_names_every_test_beside_it() -> None:
    for file in Path(__file__).parent.glob("test_*.py"):
        if file.name != Path(__file__).name:
            for test in re.findall(r"def (test_\w+)", file.read_text()):
                assert (f"tests/races/{file.name}", test) in list_named(r"(tests/[\w/]+\.py)::(\w+)")
