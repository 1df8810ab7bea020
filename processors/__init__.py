"""What runs in our own Faust workers and Spark jobs."""
