"""Speed and recall of the item index, and what latent vectors are worth; each module is a program."""
