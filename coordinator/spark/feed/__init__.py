"""The driver's side of feeding: jobs, epochs, reports."""
