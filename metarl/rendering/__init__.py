"""Videos of what a saved run does: off-screen pictures of simulated episodes, side by side."""
