"""Where LangGraph keeps the state of a run: one small row, replaced at every step."""

from __future__ import annotations

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

__all__ = ["LatestCheckpoint"]


class LatestCheckpoint(AsyncSqliteSaver):
    """Keeps the latest checkpoint only: the history of a run is its event log, and the file must not grow."""

    async def setup(self) -> None:
        """Make the tables; a commit need not reach the disk at once, because the event log does."""
        await super().setup()
        await self.conn.execute("PRAGMA synchronous=NORMAL")

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint as usual, then drop those before it."""
        stored = await super().aput(config, checkpoint, metadata, new_versions)
        thread = (stored["configurable"]["thread_id"], stored["configurable"]["checkpoint_id"])
        async with self.lock:
            for table in ("checkpoints", "writes"):
                await self.conn.execute(f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_id < ?", thread)
            await self.conn.commit()
        return stored
