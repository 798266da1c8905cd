"""What a frame is: identifiers, codecs, decimation; which scan it belongs to, and when that is over."""
