"""The demonstration: starts the real processes and watches them as any client would."""
