"""The models that investigate: one protocol, three provider adapters and a scripted one.

Importing this package imports no provider SDK; :func:`open_model` imports the one it needs.
"""

from __future__ import annotations

from marple.agent.models.prices import PRICES_VARIABLE, Price, load_prices
from marple.agent.models.protocol import (
    AssistantMessage,
    Message,
    Model,
    ModelTurn,
    Stop,
    ToolCall,
    ToolMessage,
    ToolSchema,
    Usage,
    UserMessage,
)
from marple.agent.models.providers import PROVIDERS, Provider, open_model
from marple.agent.models.scripted import ScriptedCall, ScriptedModel

__all__ = [
    "PRICES_VARIABLE",
    "PROVIDERS",
    "AssistantMessage",
    "Message",
    "Model",
    "ModelTurn",
    "Price",
    "Provider",
    "ScriptedCall",
    "ScriptedModel",
    "Stop",
    "ToolCall",
    "ToolMessage",
    "ToolSchema",
    "Usage",
    "UserMessage",
    "load_prices",
    "open_model",
]
