"""Operator screens, alarm tree and archiver list, generated from db/."""
