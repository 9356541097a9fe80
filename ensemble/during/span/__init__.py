"""Members that draft and verify spans of several tokens, across vocabularies."""
