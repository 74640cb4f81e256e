"""Every estimator on the same data, under wrong labels that are known, with time and memory: which one to use?"""
