"""sppnet"""
