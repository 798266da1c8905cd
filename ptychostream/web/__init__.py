"""A page for browsers: reads IOCs over PV Access, and serves images and figures over HTTP and a WebSocket."""
