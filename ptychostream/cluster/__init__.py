"""Several consumers of one stream: their processes, and the messages between them and their collector."""
