"""What people read: text tables, one-line messages, standard streams that do not fail, progress bars.

Imports nothing of the project but errors; text of the data is shown as it is, never read as markup.
"""
