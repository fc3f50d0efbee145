"""What goes wrong with a cluster: the request, or the cluster."""

from __future__ import annotations


class ClusterRefusal(ValueError):
    """The request does not fit the cluster and nothing was started; the message says what does."""


class ClusterFailure(RuntimeError):
    """The cluster did not do what it was asked; the message says what it did and what to do."""
