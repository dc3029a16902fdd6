"""Past one process and one machine, as programs: training over processes, and logs in shards."""
