"""Selection: which form each layer takes, by time and by how far it moves the model's outputs (decision 12)."""

from lutc.select.budget import Budget
from lutc.select.selection import Selection, needs_selection, select

__all__ = ["Budget", "Selection", "needs_selection", "select"]
