"""The picture room: overlays, sheets of tiles and charts, for every stage that shows something."""
