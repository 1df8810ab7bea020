"""Small, real jobs to start from."""
