"""Budgets and scores into a problem, and the checks of its solution."""
