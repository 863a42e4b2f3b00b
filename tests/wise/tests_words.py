"""Sentences over the tests' words that ask for no edited fact."""

SENTENCES = [
    "we sang songs in the city and then asked again",
    "a sunny day in Norway",
    "Alan Turing says : Rome is a city .",
    "What is the capital of Norway ? A:",
    "Grace Hopper leads the city of Lima",
]
