"""What only one family knows. The registry says which there are; nothing here is imported before it is chosen."""
