"""Files of people, read in a process of their own.

Parsers of documents and sounds are native code that a crafted file can crash, fill with gigabytes or keep busy for
hours. So each file is read by a child process with limits on memory, CPU, time, files and output; a child that dies
costs one line of refusal. Nothing is written to disk.
"""
