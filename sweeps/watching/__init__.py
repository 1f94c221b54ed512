"""What people and programs see of a sweep: forecast, progress, live logs, notices."""
