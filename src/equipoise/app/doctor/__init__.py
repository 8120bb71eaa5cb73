"""`equipoise doctor`: what is wrong with this machine, and with what a site asks of it, before people notice.

`gather_*` look and change nothing; `judge_*` are pure, facts in and findings out; `examine.py` puts them together.
Leaves out the nodes themselves, whose answers are for checks and `probe`; but with direct routing it asks them whether
they take packets for the virtual address, which no check can see.
"""
