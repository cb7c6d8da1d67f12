"""What the notebooks stand on: figures, demonstrations that train in order to show, widgets, checks of exercises."""
