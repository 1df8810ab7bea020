"""Faust agents that ship with streamgauge."""
