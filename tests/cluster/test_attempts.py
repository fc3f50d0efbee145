"""Whether a submission is a new job, on every kind of cluster alike."""

from __future__ import annotations

import pytest

from cluster.attempts import Earlier, attempt_after, digest_of
from cluster.remote import Submission, Submitted
from sweeps.errors import UserError

SWEEP = Submission("small", "name: small\n", {}, cpus=1.0)


def after(*earlier: Earlier, digest: str = "same") -> int | Submitted:
    return attempt_after(earlier, digest, SWEEP, "lab")


def test_the_first_submission_is_attempt_one() -> None:
    assert after() == 1


@pytest.mark.parametrize("state", ["waiting", "running", "done"])
def test_the_same_content_that_runs_or_is_done_is_not_submitted_again(state: str) -> None:
    assert after(Earlier("7", "same", 3, state)) == Submitted("7", state, False, 3)


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_the_same_content_that_ended_early_is_begun_again(state: str) -> None:
    assert after(Earlier("7", "same", 1, "stopped"), Earlier("8", "same", 2, state)) == 3


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_other_content_under_a_name_that_runs_is_refused(state: str) -> None:
    with pytest.raises(UserError, match=r"'small' runs on 'lab' already.*job 8.*stop small --on lab.*--name"):
        after(Earlier("7", "same", 1, "done"), Earlier("8", "other", 1, state))


def test_attempts_at_other_content_are_not_counted() -> None:
    assert after(Earlier("7", "other", 5, "done")) == 1
    assert after(Earlier("7", "same", 1, "failed"), Earlier("8", "other", 5, "stopped")) == 2


def test_content_that_was_done_is_not_begun_again_after_other_content_was_stopped() -> None:
    assert after(Earlier("7", "same", 1, "done"), Earlier("8", "other", 1, "stopped")) == Submitted(
        "7", "done", False, 1
    )


def test_a_digest_tells_names_contents_and_their_borders_apart() -> None:
    made = [
        digest_of({"a": b"bc"}),
        digest_of({"ab": b"c"}),
        digest_of({"a": b"b", "c": b""}),
        digest_of({"a": b"bc"}, b"more"),
    ]
    assert len(set(made)) == len(made)
    assert digest_of({"a": b"1", "b": b"2"}) == digest_of({"b": b"2", "a": b"1"})
