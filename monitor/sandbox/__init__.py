"""A real Kafka, a fake broker and loads, for the demo and the tests."""
