"""What runs inside other people's processes: one-line observers, standard library only."""
