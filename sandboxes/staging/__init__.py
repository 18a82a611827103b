"""Copies of what a worker needs, under neutral names, without anything that tells where they come from."""

from marple.sandboxes.staging.stage import StagedTarget, stage

__all__ = ["StagedTarget", "stage"]
