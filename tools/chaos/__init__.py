"""Breaks a running lab in a seeded order, and checks after each fault that nothing was lost that had to stay."""
