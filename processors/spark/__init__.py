"""Spark jobs and what submits them."""
