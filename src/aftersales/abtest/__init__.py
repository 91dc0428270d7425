"""A/B tests, around the assignment that serving makes: planning, reading, and off-policy estimates from logs."""
