"""Programs to run and to take apart; no part of the installed package."""
