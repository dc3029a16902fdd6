"""The page for people: plain forms, with htmx where scripts run."""
