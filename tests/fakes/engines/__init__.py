"""Engines that misbehave, each a few lines: `ENGINE=tests.fakes.engines.hangs` and the like."""
