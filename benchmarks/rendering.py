"""CPU time of rendering answers as Telegram messages: ordinary ones, and ones that cost as much as they can.

`python -m benchmarks.rendering` prints, for each text, the CPU time of one update with the whole answer, of the slowest
update of a stream, and per unit of work.
"""

import gc
import time

from bot.telegram.markdown.pages import Pages

PARAGRAPH = "A sentence with **bold** words, `code` and [a link](https://example.org/x). It goes on for a while. " * 4
TEXTS = {
    "prose, a page": (PARAGRAPH + "\n\n") * 10,
    "prose, 4 pages": (PARAGRAPH + "\n\n") * 42,
    "code, 4 pages": "```py\n" + "    value = compute(value)  # a comment\n" * 420 + "```",
    "table, 2 pages": "| id | name |\n|---|---|\n" + "| 12345 | a name of some length |\n" * 220,
    "`$$` lines": "$$\n" * 5000,
    "dollars": "$" * 30_000,
    "fences": "```\n" * 8000,
    "empty links": "[](x)" * 4000,
    "short headings": "# a\n" * 4000,
    "short emphasis": "**a**_b_`c`" * 1500,
    "short formulas": "$$a$$" * 3000,
    "a megabyte": "A sentence of an answer that does not end. " * 25_000,
}
STEP = 300


def cpu_ms(pages: Pages, source: str) -> float:
    """Returns the CPU time of an update, in milliseconds."""
    began = time.thread_time()
    pages.update(source)
    return (time.thread_time() - began) * 1000


def main() -> None:
    """Prints a line for each text."""
    Pages().update(PARAGRAPH)
    gc.collect()
    gc.freeze()
    print(f"{'text':16} {'at once, ms':>12} {'slowest, ms':>12} {'us a unit':>10} pages")
    for name, text in TEXTS.items():
        whole, stream = Pages(most=4), Pages(most=4)
        at_once = cpu_ms(whole, text)
        ends = range(STEP, min(len(text), 40_000) + STEP, STEP)
        slowest = max(cpu_ms(stream, text[:end]) for end in ends)
        more = "+" if whole.overflows else ""
        print(
            f"{name:16} {at_once:12.1f} {slowest:12.1f} {1000 * at_once / whole.spent:10.2f} {len(whole.all):4}{more}"
        )


if __name__ == "__main__":
    main()
