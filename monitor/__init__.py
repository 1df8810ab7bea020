"""The monitor: observe, derive, publish."""
