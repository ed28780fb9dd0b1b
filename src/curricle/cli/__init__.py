"""The `curricle` command: thin verbs over `steps`, and how they look in a terminal."""
