import httpx

from marple.agent.models import AssistantMessage, ModelTurn, ToolCall


class SmallServer:
    def __init__(self, url):
        self.name = f"small-server/{url}"
        self._client = httpx.AsyncClient(base_url=url, timeout=600)

    async def generate(self, system, messages, tools, *, max_output_tokens=4096, effort=None, on_delta=None):
        said = [m.turn.text if isinstance(m, AssistantMessage) else m.text for m in messages]
        asked = {"system": system, "messages": said, "tools": [vars(tool) for tool in tools]}
        answered = (await self._client.post("/answer", json=asked)).raise_for_status().json()
        calls = [ToolCall.of(c["tool"], c["arguments"], id=f"c{i}") for i, c in enumerate(answered["calls"])]
        stop = "tool_calls" if calls else "end"
        return ModelTurn(text=answered["text"], tool_calls=tuple(calls), stop=stop, model=self.name)

    async def close(self):
        await self._client.aclose()
