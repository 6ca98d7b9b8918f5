"""Data that members read by themselves: which part is whose, and how it gets to the local disk."""
