"""Faust workers, by what they report of themselves."""
