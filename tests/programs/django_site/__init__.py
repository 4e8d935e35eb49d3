"""A Django project, for `tests/test_django.py`."""
