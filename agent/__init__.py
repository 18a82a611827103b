"""Who investigates: the loop, the notebook, budgets, models and investigators."""
