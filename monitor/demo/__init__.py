"""The demo: a real pipeline on this machine, watched by the monitor, and a check that what it says is true."""
