"""What a frame is: identifiers, codecs, thinning, and when a stream is idle."""
