"""Images on their way to a browser: decoded, quantised, compared, compressed, drawn."""
