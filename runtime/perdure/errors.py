"""One tree of exceptions. Names and meanings of the workflow errors are those of the origin's API."""

from __future__ import annotations


class PerdureError(Exception):
    """The root of all that Perdure raises by itself."""


# --- the authoring API's own names ---------------------------------------------------------------


class WorkflowValidationError(PerdureError):
    """A step's signature, or the graph of steps and events, is wrong."""


class WorkflowConfigurationError(PerdureError):
    """A workflow has no steps, or not exactly one start and one stop event class."""


class WorkflowRuntimeError(PerdureError):
    """A step or a caller did what the running workflow can't accept."""


class WorkflowTimeoutError(PerdureError):
    """The run was alive for longer than its `timeout`."""


class WorkflowCancelledByUser(PerdureError):
    """The run was cancelled through its handler."""


class WorkflowStepDoesNotExistError(PerdureError):
    """An event was sent to a step that isn't there."""


class WorkflowDone(PerdureError):
    """Kept for programs that import the origin's name; never raised."""


class ContextSerdeError(PerdureError):
    """A serialized context can't be read."""


class ContextStateError(PerdureError):
    """A Context was used in a way that its present face (before, outside or in a run) doesn't offer."""


# --- durability -----------------------------------------------------------------------------------


class RunHeldError(PerdureError):
    """The run has a live holder; `wait=True` waits for it."""


class LeaseLostError(PerdureError):
    """Another holder has the run, or the lease could not be kept: nothing more is written here."""


class RunEndedError(PerdureError):
    """The run has its outcome already; `outcome` is the JSON that the store holds."""

    def __init__(self, outcome: bytes) -> None:
        super().__init__("the run has already ended")
        self.outcome = outcome


class InboxFullError(PerdureError):
    """So many events wait for the run that it takes no more."""


class UnfitEventError(PerdureError):
    """An event from outside is none of the workflow's, or its fields don't fit."""


class StoreError(PerdureError):
    """The root of what a store raises."""


class StoreUnavailableError(StoreError):
    """The store doesn't answer, or can't take writes now. Worth trying again."""


class StoreAccessError(StoreError):
    """The store refuses the credentials, or the command to them. A person must mend that."""


class StateLostError(StoreError):
    """The store has lost state of this run that it had acknowledged."""


class CommitConflictError(StoreError):
    """The store holds other bytes at this seq from the same holder: a bug, not a fault."""


class CheckpointError(PerdureError):
    """The root of what is wrong with a record or a snapshot."""


class CheckpointTooLargeError(CheckpointError):
    """A record or snapshot is over `checkpoint.maxBytes`; it was not sent."""


class CheckpointCorruptError(CheckpointError):
    """A record or snapshot isn't what was written; the state is left as it is."""


class IncompatibleError(CheckpointError):
    """A record or snapshot is of a format, or names code, that this version doesn't have."""


class EntrypointError(PerdureError):
    """What `workflow.entrypoint` names can't be imported, or isn't a workflow."""


class ManifestError(PerdureError):
    """A WorkflowRun manifest is invalid: says where, what, and what instead."""
