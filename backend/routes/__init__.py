"""What the URLs are: parse → call one service → answer. One file a resource, body shapes beside their handler.

May import: web, services, domain, errors.
"""
