"""The schema's history; only ever forward. Every step is SQL as it was then, independent of today's tables."""
