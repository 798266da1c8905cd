"""The recorder: a stream into scan files."""
