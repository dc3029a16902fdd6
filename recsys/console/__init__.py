"""What people read: text tables, one-line messages, standard streams that do not fail, progress bars.

Imports errors and files alone; text of the data is shown as it is, never read as markup.
"""
