"""Looking into and caring for clusters by hand: what a person at the command line runs once."""
