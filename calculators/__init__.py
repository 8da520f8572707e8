"""Wrappers that let simulation codes call a trained potential."""
