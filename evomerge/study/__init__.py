"""A study: the job, the one loop, the journal, budgets, and the choice of the winner."""
