"""Alert rules as data, rendered for Prometheus."""
