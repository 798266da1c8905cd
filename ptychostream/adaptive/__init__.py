"""Where a scan should measure next."""
