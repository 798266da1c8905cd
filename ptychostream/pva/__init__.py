"""PV Access through p4p: read channels, decode updates, build images. The agent does not import it."""
