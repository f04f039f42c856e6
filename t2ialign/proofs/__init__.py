"""Claims to measure, one file a subject: `t2ialign prove SUBJECT` finds that file by its name."""
