"""How one member writes until another is wanted."""
