"""The wiring: definitions, jobs, schedules, sensors and the command line. No computing happens here."""
