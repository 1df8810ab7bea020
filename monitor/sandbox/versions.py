"""The versions of Kafka that the sandbox runs, newest first. Light, because ``--help`` lists them."""

KAFKA_VERSIONS = ("4.3.1", "4.0.2", "3.9.2", "3.7.2")
