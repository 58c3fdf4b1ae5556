"""The pages of `canal review`: who may see them, what they show, how they are served."""
