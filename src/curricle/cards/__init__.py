"""Model cards: what is known of a model, as a README.md that people and the Hugging Face hub read. States what somebody stated, and invents nothing."""
