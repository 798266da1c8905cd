"""The way of a frame through the plugin, up to the batch."""
