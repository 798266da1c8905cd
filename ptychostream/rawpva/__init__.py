"""Record and serve PV Access updates bit for bit. Only recordings and replays use it."""
