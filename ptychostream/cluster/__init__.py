"""Several consumers that share one stream: what their collector and they tell each other, and the processes."""
