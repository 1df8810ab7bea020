"""The streamgauge command, one module a command family."""
