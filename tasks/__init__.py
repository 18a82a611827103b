"""What is asked and how it is scored; organisms and ground truth live only here."""
