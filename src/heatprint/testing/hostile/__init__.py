"""Hostile files, made and not collected: what readers of images, models, runs and recipes must survive.

Every generator is deterministic; nothing here is dangerous to anybody who reads files as data.

    images.py     every readable kind with the pixels that must come out, and damaged copies
    bombs.py      what claims more than it has, what grows, and other things called like images
    places.py     names, links, pipes, devices, folders within folders
    pickles.py    checkpoints that would run something
    tables.py     JSON, TOML, arrays and rows that do not hold what they should
    learners.py   fitted detectors whose trees lead astray
"""
