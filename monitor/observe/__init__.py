"""Asking the world: every read of a broker, a checkpoint or a sensor."""
