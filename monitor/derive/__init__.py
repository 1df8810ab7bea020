"""Arithmetic on values: snapshots in, a report out. No I/O, no clock."""
