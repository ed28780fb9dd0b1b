"""NER: named-entity models trained further on new data, and what they forget."""
