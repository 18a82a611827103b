"""How a judge is to judge free text, in Markdown, and reports labelled by hand to check judges with."""
