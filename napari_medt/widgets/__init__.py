"""The dock in napari: it collects the user's choices, knocks on the doors of the other rooms and shows what comes back."""
