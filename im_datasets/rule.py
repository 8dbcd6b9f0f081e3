"""A linear rule as data: indicator columns → ``im_log_loss``; load, save, explain."""
