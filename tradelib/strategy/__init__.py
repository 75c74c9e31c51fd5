"""Strategies: indicators, scores in -1…1, and the step that turns a score into a decision."""
