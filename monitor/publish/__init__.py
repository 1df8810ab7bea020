"""Serving a report: exposition, JSON, status page."""
