"""Members that take turns by reasoning step."""
