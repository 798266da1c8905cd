"""Published real scans: fetched, checked, converted and cached; each is a module, and nothing in them can run code."""
