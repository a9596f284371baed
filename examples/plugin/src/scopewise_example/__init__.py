"""An example of a plugin for scopewise."""
