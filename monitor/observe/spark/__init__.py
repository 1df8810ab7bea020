"""Reading Spark's streaming queries from what they leave behind."""
