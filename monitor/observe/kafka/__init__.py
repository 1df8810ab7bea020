"""Reading a Kafka cluster: transport, wire formats, groups, offsets, record times."""
