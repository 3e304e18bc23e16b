"""Reminders and scheduled prompts: parses their times, stores them, and enqueues each as a job when it is due.

A due entry is enqueued under an id made of its row and its time, so that it runs once however many replicas see it. An
entry whose time passed while no process ran is enqueued at the next start, a recurring one only once.
"""
