"""From a user's file to a trained model: what is asked for, prepared, trained, judged and kept."""
