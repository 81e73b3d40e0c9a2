"""What people look at: the HTML report, pictures, and small tables about large ones. All drawing is here."""
