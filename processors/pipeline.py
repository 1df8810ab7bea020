"""Limits of readings, for those who look for them here."""

from processors.agents.reading import COLDEST, HOTTEST

__all__ = ["COLDEST", "HOTTEST"]
