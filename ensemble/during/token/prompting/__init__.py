"""What members make of a prompt before they answer, and the weights that come of it."""
