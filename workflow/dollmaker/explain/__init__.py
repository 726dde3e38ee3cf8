"""Explain: where does a segmentation network look when it calls pixels a finding?"""
