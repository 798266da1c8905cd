"""The frame, its number, its codecs, the decimation of frames, the scan of a frame, and the end of a scan."""
