"""What a study leaves for people to look at: numbers as JSON, a picture of the search."""
