"""Directions in activation space: how they are made, kept in the worker, and stored in files."""
