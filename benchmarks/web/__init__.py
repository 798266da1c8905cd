"""The page for browsers in Chromium beside a stream: images per second, latency, time to be ready, memory."""
