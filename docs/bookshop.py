"""A small bookshop's log to try things on: `python3 docs/bookshop.py shop` writes shop/visits.csv and shop/books.csv.

Every reader keeps to two genres, looks at some books a visit and takes some of them. The same call writes the same bytes.
"""

import csv
import random
import sys
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path

DAYS, READERS, BOOKS = 6, 250, 300
GENRES = ("crime", "poetry", "travel", "science", "history", "cooking")
BY_HOUR = (3, 2, 1, 1, 2, 4, 8, 12, 15, 16, 17, 18, 20, 19, 18, 18, 20, 24, 28, 30, 28, 20, 12, 6)  # readers sleep at night


def main(folder: Path) -> None:
    draw = random.Random(7)
    books = [(f"bk-{n:03}", draw.choices(GENRES)[0], f"{5 + 25 * draw.random():.2f}") for n in range(BOOKS)]
    liked = [set(draw.choices(GENRES, k=2)) for _ in range(READERS)]
    shelves = [[book for book in books if book[1] in genres] for genres in liked]
    visits = []
    for day, reader in product(range(DAYS), range(READERS)):
        if draw.random() < 0.5:
            continue
        now = datetime(2026, 5, 4) + timedelta(days=day, hours=draw.choices(range(24), BY_HOUR)[0] + draw.random())
        for _ in range(3 + int(5 * draw.random())):
            book, genre, _price = draw.choices(shelves[reader] if draw.random() < 0.6 else books)[0]
            sold = draw.random() < (0.3 if genre in liked[reader] else 0.05)
            for event in ("view", *(["cart"] if sold else []), *(["buy"] if sold and draw.random() < 0.5 else [])):
                now += timedelta(seconds=10 + int(80 * draw.random()))
                visits.append((now.strftime("%Y-%m-%dT%H:%M:%SZ"), f"reader-{reader:03}", book, event))
    folder.mkdir(parents=True, exist_ok=True)
    for name, header, rows in (
        ("visits.csv", ("happened_at", "reader", "book", "event"), sorted(visits)),
        ("books.csv", ("book", "genre", "price"), books),
    ):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
