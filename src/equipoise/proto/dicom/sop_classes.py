"""Which service an abstract syntax belongs to, in the words that routes use.

Leaves out what no route can name: verification, print, unified procedure step, instance availability and the like, and
every private class, since nothing in a private UID says whether it is stored or asked for.
Source: DICOM PS3.6 table A-1; PS3.4 annexes B.5 and GG (storage), C (query/retrieve), F (performed procedure step),
J.3 (storage commitment), K (worklist), U, X, BB, HH, II and JJ (storage, query and retrieval of what is no patient's).
"""

_DICOM = "1.2.840.10008."
_COMPOSITE = _DICOM + "5.1.4.1.1."  # all of these are stored, those of tomorrow included, but for what follows
_NOT_STORED = {
    _COMPOSITE + "200.4": "query",  # protocol approval
    _COMPOSITE + "200.5": "retrieve",
    _COMPOSITE + "200.6": "retrieve",
    _COMPOSITE + "201.2": "query",  # inventory
    _COMPOSITE + "201.3": "retrieve",
    _COMPOSITE + "201.4": "retrieve",
    _COMPOSITE + "201.5": None,  # inventory creation: an N-ACTION
    _COMPOSITE + "201.6": "query",  # repository query
}
_GETS = frozenset(
    _DICOM + end
    for end in (
        "5.1.4.1.2.1.3",  # patient root
        "5.1.4.1.2.2.3",  # study root
        "5.1.4.1.2.3.3",  # patient/study only, retired
        "5.1.4.1.2.4.3",  # composite instance root
        "5.1.4.1.2.5.3",  # without bulk data
        "5.1.4.20.3",  # defined procedure protocol
        "5.1.4.38.4",  # hanging protocol
        "5.1.4.39.4",  # color palette
        "5.1.4.43.4",  # generic implant template
        "5.1.4.44.4",  # implant assembly template
        "5.1.4.45.4",  # implant template group
        "5.1.4.1.1.200.6",  # protocol approval
        "5.1.4.1.1.201.4",  # inventory
    )
)
_ELSEWHERE = {
    "store": (
        "5.1.1.27",  # stored print, retired
        "5.1.1.29",  # hardcopy grayscale, retired
        "5.1.1.30",  # hardcopy color, retired
        "5.1.4.34.1",  # RT beams delivery instruction, trial
        "5.1.4.34.7",  # RT beams delivery instruction
        "5.1.4.34.10",  # RT brachy application setup delivery instruction
        "5.1.4.38.1",  # hanging protocol
        "5.1.4.39.1",  # color palette
        "5.1.4.43.1",  # generic implant template
        "5.1.4.44.1",  # implant assembly template
        "5.1.4.45.1",  # implant template group
    ),
    "query": (
        "5.1.4.1.2.1.1",
        "5.1.4.1.2.2.1",
        "5.1.4.1.2.3.1",
        "5.1.4.20.1",
        "5.1.4.38.2",
        "5.1.4.39.2",
        "5.1.4.43.2",
        "5.1.4.44.2",
        "5.1.4.45.2",
    ),
    "retrieve": (
        "5.1.4.1.2.1.2",
        "5.1.4.1.2.2.2",
        "5.1.4.1.2.3.2",
        "5.1.4.1.2.4.2",
        "5.1.4.20.2",
        "5.1.4.38.3",
        "5.1.4.39.3",
        "5.1.4.43.3",
        "5.1.4.44.3",
        "5.1.4.45.3",
    ),
    "worklist": ("5.1.4.31",),
    "mpps": ("3.1.2.3.3", "3.1.2.3.4", "3.1.2.3.5"),
    "commitment": ("1.20.1",),
}
_WORDS = {_DICOM + end: word for word, ends in _ELSEWHERE.items() for end in ends} | dict.fromkeys(_GETS, "retrieve")


def service_of(uid: str) -> str | None:
    """Return the word for what this abstract syntax asks for; None where there is none."""
    word = _WORDS.get(uid)
    if word is None and uid.startswith(_COMPOSITE):
        return _NOT_STORED.get(uid, "store")
    return word


def is_get(uid: str) -> bool:
    """Return whether this is a model of C-GET, whose objects come back on the same association."""
    return uid in _GETS
