"""Dose-response experiments: steer with a direction beside its controls and judge whether the effect is its own."""
