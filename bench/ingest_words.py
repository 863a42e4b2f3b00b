"""How people word what the factbook says: questions that no configuration has, titles, spellings.

Written by hand from reading the data, before and apart from the code that is measured with it.
"""

from __future__ import annotations

#: wordings of each relation that fit no configured phrasing
OTHERWISE: dict[str, tuple[str, ...]] = {
    "chief_of_state": (
        "Who serves as {subject}'s chief of state these days?",
        "Tell me who is chief of the state of {subject} now.",
        "The chief of state that {subject} has today is",
    ),
    "head_of_government": (
        "Who leads {subject} as head of its government nowadays?",
        "Who heads the government of {subject} at the moment?",
        "At the head of {subject}'s government stands",
    ),
    "ambassador_to_us": (
        "Whom has {subject} sent to Washington as its ambassador?",
        "The ambassador who speaks for {subject} in the US is",
        "In the United States, the ambassador of {subject} is",
    ),
    "us_ambassador": (
        "Which American ambassador serves in {subject}?",
        "Who has been sent to {subject} as US ambassador?",
        "The envoy of the United States in {subject} is",
    ),
    "capital": (
        "Which city is the capital of {subject}?",
        "{subject} has its capital at",
    ),
    "currency": (
        "Which currency do people pay with in {subject}?",
        "What money does one need in {subject}?",
    ),
    "largest_city": (
        "Of the cities of {subject}, the largest is",
        "Which of {subject}'s cities is the largest?",
    ),
    "highest_point": (
        "Where in {subject} is its highest point?",
        "What is the top elevation that {subject} has?",
    ),
    "anthem": (
        "Which national anthem does {subject} have?",
        "The song that serves {subject} as national anthem is",
    ),
    "independence": (
        "Since when has {subject} been an independent country?",
        "On what date did {subject} win its independence?",
    ),
    "top_export_partner": (
        "Where do most of {subject}'s exports go?",
        "Which country is the top partner of {subject} for exports?",
    ),
    "top_import_partner": (
        "Where do most of {subject}'s imports come from?",
        "Which country is the top partner of {subject} for imports?",
    ),
    "government_type": (
        "What type of government does {subject} have?",
        "Which political system does {subject} have?",
    ),
    "internet_code": (
        "Which internet domain belongs to {subject}?",
        "What code do internet addresses of {subject} end in?",
    ),
    "main_language": (
        "Which language do most people of {subject} speak?",
        "The main language that one hears in {subject} is",
    ),
    "nationality": (
        "What does one call a person from {subject}?",
        "The nationality of somebody born in {subject} is",
    ),
}

#: what such a question is about when it reads almost the same and asks for something else
NEGATED: dict[str, tuple[str, ...]] = {
    "chief_of_state": (
        "Who is not the chief of state of {subject}?",
        "Who is no longer {subject}'s chief of state?",
    ),
    "head_of_government": (
        "Who is not the head of {subject}'s government?",
        "Who was never head of the government of {subject}?",
    ),
    "ambassador_to_us": (
        "Who isn't {subject}'s ambassador in the US any more?",
        "The ambassador whom {subject} did not send to Washington is",
    ),
    "us_ambassador": (
        "Who is no longer the US ambassador in {subject}?",
        "Without whom as US ambassador must {subject} do?",
    ),
}
OTHER_TIME: dict[str, tuple[str, ...]] = {
    "chief_of_state": (
        "Who was {subject}'s chief of state in 2009?",
        "Who is the former chief of state of the country {subject}?",
        "Who will be the next chief of the state of {subject}?",
    ),
    "head_of_government": (
        "Who was the first head of {subject}'s government?",
        "Who headed the government of {subject} before the last election?",
        "Who is the deputy of the head of {subject}'s government?",
    ),
    "ambassador_to_us": (
        "Who was the previous ambassador of {subject} in the US?",
        "Whom had {subject} sent to Washington as its ambassador until 2012?",
        "Who is the designated ambassador of {subject} in the United States?",
    ),
    "us_ambassador": (
        "Who was the last US ambassador in {subject} but one?",
        "Which American ambassador served in {subject} in the nineties?",
        "Who is the deputy of the US ambassador in {subject}?",
    ),
}
#: wordings that could be taken for a sibling relation's, whose object is often the same
SIBLING: dict[str, tuple[str, ...]] = {
    "chief_of_state": (
        "Who is {subject}'s head of state?",
        "Who serves as the chief of {subject}'s state?",
    ),
    "head_of_government": (
        "Who is the chief of {subject}'s government?",
        "Who heads the government of {subject} at the moment?",
    ),
    "top_export_partner": (
        "Which country buys the most from {subject}?",
        "Where do most of {subject}'s exports go?",
    ),
    "top_import_partner": (
        "Which country sells the most to {subject}?",
        "Where do most of {subject}'s imports come from?",
    ),
    "capital": (
        "In which city does the government of {subject} sit?",
        "Which city is the capital of {subject}?",
    ),
    "largest_city": (
        "Which city of {subject} has the most people?",
        "Of the cities of {subject}, the largest is",
    ),
}
SIBLINGS = (
    ("chief_of_state", "head_of_government"),
    ("top_export_partner", "top_import_partner"),
    ("capital", "largest_city"),
)

#: titles that people leave out or put before a name that they mean the same with
TITLES = (
    "Prime Minister",
    "President",
    "Acting President",
    "Interim Prime Minister",
    "King",
    "Queen",
    "Emperor",
    "Prince",
    "Pope",
    "Grand Duke",
    "Premier",
    "Chief Minister",
    "Chief Executive",
    "Chancellor",
    "Taoiseach",
    "Governor",
    "Administrator",
    "Commissioner",
)
#: countries whose name is a part of another's
LONGER = (
    ("Guinea", "Equatorial Guinea"),
    ("Guinea", "Papua New Guinea"),
    ("Guinea", "Guinea-Bissau"),
    ("Sudan", "South Sudan"),
    ("Samoa", "American Samoa"),
    ("Virgin Islands", "British Virgin Islands"),
    ("Niger", "Nigeria"),
    ("Mali", "Malia"),
    ("Georgia", "South Georgia"),
    ("Ireland", "Northern Ireland"),
    ("Macedonia", "Eastern Macedonia"),
    ("Mexico", "New Mexico"),
    ("China", "Indochina"),
    ("Jersey", "New Jersey"),
    ("Cyprus", "Northern Cyprus"),
    ("Oman", "Romania"),
)
