"""Results to read: on the console, as a page, and as tables to publish."""
