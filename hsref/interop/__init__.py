"""Bridges to other frameworks; each is imported when the first array of its framework arrives."""
