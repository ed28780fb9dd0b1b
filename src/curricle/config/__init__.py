"""Typed, strict configuration. `schema` says what there is; `load` composes files and overrides into it."""
