"""Evaluations: a suite of cases played by several arms, and the tables that come of it."""
