"""Rows on their way from Spark into a member's process: both ends of it."""
