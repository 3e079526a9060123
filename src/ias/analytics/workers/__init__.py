"""What runs without being asked: the consumer of usage records and the timer."""
