"""When things run: definitions, jobs, schedules, sensors, automation and the command line."""
