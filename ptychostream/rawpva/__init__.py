"""PV Access messages kept and served bit for bit; for recordings and replays alone."""
