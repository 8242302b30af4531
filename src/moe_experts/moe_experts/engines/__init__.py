"""Engines: what turns tokens into tokens, behind one contract."""
