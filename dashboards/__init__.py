"""Boards as code, rendered for Grafana."""
