"""Sanity: does a recipe look at the model and the finding at all?"""
