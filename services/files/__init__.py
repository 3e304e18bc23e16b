"""Files of people, read in a process of their own.

Parsers of documents and audio are native code that a crafted file can crash, exhaust the memory of, or keep busy for
hours. Each file is therefore read by a child process with limits on memory, CPU, time, files and output; if the child
dies, the user gets a refusal. Nothing is written to disk.
"""
