"""Letters that look like Latin ones, after the confusables data of Unicode (UTS #39, 13.0).

Of each script no two letters share a Latin one, so that words of one script stay apart. Where the
data has two, or the cases of a letter look like two (nu: N and v), the one stands whose capital
has the look, or that more languages use. Digits are never taken for letters.
Contains small letters only, as `str.casefold` gives them (of Cherokee these are the capitals).
"""

from __future__ import annotations

_CYRILLIC = (
    "\u0430\u0432\u0441\u0501\u0435\u050d\u043d\u0456\u0458\u043a\u04cf\u043c"
    "\u043e\u0440\u051b\u0433\u0455\u0442\u0475\u051d\u0445\u0443",
    "abcdeghijklmopqrstvwxy",
)
_GREEK = (
    "\u03b1\u03b2\u03b5\u03dd\u03b7\u03b9\u03f3\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u03b6",
    "abefhijkmnoptyxz",
)
_ARMENIAN = ("\u0584\u0581\u0570\u0578\u0585\u0566\u057f\u057d\u0561", "fghnoqsuw")
_COPTIC = (
    "\u2ca5\u2c8f\u2c93\u2c95\u2cd1\u2c99\u2c9b\u2c9f\u2ca3\u2c85\u2ca7\u2cad\u2ca9",
    "chiklmnoprtxy",
)
_CHEROKEE = (
    "\u13aa\u13f4\u13df\u13a0\u13ac\u13c0\u13bb\u13a5\u13ab\u13e6\u13de\u13b7"
    "\u13e2\u13a1\u13da\u13a2\u13d9\u13b3\u13a9\u13c3",
    "abcdeghijklmprstvwyz",
)
_LISU = (
    "\ua4ee\ua4d0\ua4da\ua4d3\ua4f0\ua4dd\ua4d6\ua4e7\ua4f2\ua4d9\ua4d7\ua4e1\ua4df"
    "\ua4e0\ua4f3\ua4d1\ua4e3\ua4e2\ua4d4\ua4f4\ua4e6\ua4ea\ua4eb\ua4ec\ua4dc",
    "abcdefghijklmnoprstuvwxyz",
)
#: small capitals, in the order of the alphabet without x; by their names, the data has only some
_SMALL_CAPITALS = (
    "\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d"
    "\u0274\u1d0f\u1d18\ua7af\u0280\ua731\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22",
    "abcdefghijklmnopqrstuvwyz",
)
#: alpha, script g, dotless i and j, and the estimated sign; not the iota, the gamma and the
#: hooked v of Latin script, which whole languages write beside i, y and u
_LATIN = ("\u0251\u0261\u0131\u0237\u212e", "agije")

#: a script's letters, and the Latin letter that each looks like
SCRIPTS = (_CYRILLIC, _GREEK, _ARMENIAN, _COPTIC, _CHEROKEE, _LISU, _SMALL_CAPITALS, _LATIN)
#: for `str.translate`
LATIN_LOOK = {
    ord(letter): latin
    for letters, looks in SCRIPTS
    for letter, latin in zip(letters, looks, strict=True)
}
