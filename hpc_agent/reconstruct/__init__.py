"""Ptychographic reconstruction behind one interface."""
