"""The report for people: its content once, and the forms it is shown in."""
