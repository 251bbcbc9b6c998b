"""Durable Python workflows for Kubernetes: a run is a resource, its state is a snapshot in Redis."""

from perdure.context import Context
from perdure.decorators import catch_error, step
from perdure.errors import PerdureError
from perdure.handler import WorkflowHandler
from perdure.workflow import Workflow

__all__ = ["Context", "PerdureError", "Workflow", "WorkflowHandler", "catch_error", "step"]
__version__ = "0.1.0"
