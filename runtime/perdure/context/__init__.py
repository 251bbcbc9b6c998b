"""The run as its steps and its starter see it, and how its values are written."""

from perdure.context.context import Context
from perdure.context.serializers import BaseSerializer, JsonSerializer, PickleSerializer

__all__ = ["BaseSerializer", "Context", "JsonSerializer", "PickleSerializer"]
