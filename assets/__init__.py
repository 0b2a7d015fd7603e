"""The line: days, files and the engine. One module a stage, in flow order; a stage imports only earlier ones."""
