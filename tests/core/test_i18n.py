"""The texts: the same in every language, and every one that the code asks for."""

import ast
import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fluent.syntax import FluentParser
from fluent.syntax import ast as ftl
from fluent.syntax.visitor import Visitor
from structlog.testing import capture_logs

from core import i18n
from core.i18n import Texts

ROOT = Path(__file__).parents[2]
LOCALES = ROOT / "core" / "locales"
LANGUAGES = sorted(path.name for path in LOCALES.iterdir())
NEUTRAL = frozenset({"audit-act", "compare-waiting", "moderation-cost", "thread-card", "web-by-token"})
"""Russian texts without a Russian word."""


class _Variables(Visitor):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_VariableReference(self, node: ftl.VariableReference) -> None:  # noqa: N802 - the visitor's protocol
        self.names.add(node.id.name)


def entries(language: str) -> list[ftl.EntryType]:
    """The texts in the file of a language."""
    return FluentParser().parse((LOCALES / language / "main.ftl").read_text(encoding="utf-8")).body


def variables(language: str) -> dict[str, set[str]]:
    """The variables of every text of a language."""
    found: dict[str, set[str]] = {}
    for entry in entries(language):
        if isinstance(entry, ftl.Message):
            visitor = _Variables()
            visitor.visit(entry)
            found[entry.id.name] = visitor.names
    return found


def asked_for() -> Iterator[tuple[str, str]]:
    """Literal keys that the code passes to a `Texts`, in calls such as `self._texts.get("start", ...)`."""
    for floor in ("core", "services", "bot"):
        for path in (ROOT / floor).rglob("*.py"):
            yield from keys_in(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))


def keys_in(source: str, name: str) -> Iterator[tuple[str, str]]:
    """The keys that a module asks for, each with its place."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in {"get", "label"}:
            continue
        if not re.search(r"\b_?texts(\(.*\))?$", ast.unparse(node.func.value), re.IGNORECASE):
            continue
        # A choice between two keys, `"a" if x else "b"`, has two literals.
        for key in literals(node.args[0]) if node.args else ():
            yield f"{name}:{node.lineno}", key


def literals(node: ast.expr) -> Iterator[str]:
    """The literals of a key; one that is composed, `f"persona-{x}-name"`, with `*` for what varies."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from literals(child)


class TestFiles:
    """The Fluent files."""

    def test_languages_include_english_and_russian(self) -> None:
        assert {"en", "ru"} <= set(LANGUAGES)
        assert Texts().languages == tuple(LANGUAGES)

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_locale_files_parse_and_have_unique_keys(self, language: str) -> None:
        assert not [entry for entry in entries(language) if isinstance(entry, ftl.Junk)]
        keys = [entry.id.name for entry in entries(language) if isinstance(entry, ftl.Message)]
        assert len(keys) == len(set(keys))

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_locales_have_the_keys_and_variables_of_english(self, language: str) -> None:
        assert variables(language) == variables("en")

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_texts_format_without_errors(self, language: str) -> None:
        """Strict: a missing reference or argument would raise."""
        texts = Texts(strict=True)
        for key, names in variables(language).items():
            text = texts.get(key, language, **dict.fromkeys(names, "X"))
            assert text.strip()
            assert "{" not in text
            # Telegram counts a message in 4,096 UTF-16 units; no text of ours is near that.
            assert len(text) < 1000

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_button_texts_fit_a_phone(self, language: str) -> None:
        buttons = [key for key in variables(language) if key.startswith("button-")]
        assert buttons
        assert all(len(Texts().get(key, language)) <= 24 for key in buttons)

    def test_every_key_in_the_code_exists(self) -> None:
        known = variables("en")
        assert [f"{place}: {key}" for place, key in asked_for() if not fnmatch.filter(known, key)] == []

    @pytest.mark.parametrize(
        ("source", "keys"),
        [
            ('texts.get("a-b", language)', ["a-b"]),  # a name
            ('self._texts.get("a", None, x=d.get("b"))', ["a"]),  # an attribute; an argument's `get` is another's
            ('self.deps.texts.get("a" if x else "b")', ["a", "b"]),  # a choice
            ("texts.get(key)", []),  # not a literal
            ('texts.get(f"a-{b}-c" if b else "d")', ["a-*-c", "d"]),  # composed
            ('contexts.get("a"); d["texts"].get("b")', []),  # other objects
        ],
    )
    def test_keys_in_the_code_are_found(self, source: str, keys: list[str]) -> None:
        assert [key for _, key in keys_in(source, "x")] == keys


class TestTexts:
    """Asking for a text."""

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("ru", "Остановить"),
            ("ru-RU", "Остановить"),  # a region
            ("RU_ru", "Остановить"),  # as some clients write it
            ("ru-Cyrl-RU", "Остановить"),  # a script too
            ("en-GB", "Stop"),
            ("pt-br", "Stop"),  # not there: English
            ("../en", "Stop"),  # nothing of a user's reaches the file system
            ("", "Stop"),
            (None, "Stop"),
        ],
    )
    def test_texts_fall_back_to_the_nearest_language(self, language: str | None, text: str) -> None:
        assert Texts(strict=True).get("button-stop", language) == text

    def test_texts_insert_arguments_unchanged(self) -> None:
        """No isolation marks, and nothing in a name is taken for Fluent."""
        text = Texts(strict=True).get("answered-by", "en", provider="{ $x } \u202eא")
        assert text == "answered by { $x } \u202eא"

    def test_texts_fall_back_to_english(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for language, content in {"en": "a = A\nb = B\n", "xx": "a = X\n"}.items():
            (tmp_path / language).mkdir()
            (tmp_path / language / "main.ftl").write_text(content)
        monkeypatch.setattr(i18n, "_LOCALES", tmp_path)
        texts = Texts(strict=True)
        assert (texts.get("a", "xx"), texts.get("b", "xx")) == ("X", "B")

    @pytest.mark.parametrize(("key", "event"), [("no-such-text", "text.missing"), ("start", "text.incomplete")])
    def test_missing_texts_raise_in_strict_mode_and_are_logged_otherwise(self, key: str, event: str) -> None:
        with pytest.raises(LookupError, match=key):
            Texts(strict=True).get(key)
        with capture_logs() as logs:
            assert Texts().get(key)
        assert [entry["event"] for entry in logs] == [event]

    def test_languages_are_read_once_on_first_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []
        read_language = i18n._read
        monkeypatch.setattr(i18n, "_read", lambda language: (read.append(language), read_language(language))[1])
        texts = Texts()
        assert read == []
        for _ in range(3):
            texts.get("button-stop", "ru")
        assert read == ["ru"]
        texts.get("button-stop", "de")
        assert read == ["ru", "en"]

    def test_labels_are_formatted_once_for_each_language(self) -> None:
        texts = Texts(strict=True)
        for _ in range(3):
            for language in ("en", "ru", "ru-RU"):
                assert texts.label("button-stop", language) == texts.get("button-stop", language)
        assert texts.label.cache_info().misses == 3


SENTENCE = re.compile(r"[A-Z][a-z]+(?:[ ,][a-z'’]+){2,}")
WORDED = ("bot/operators", "bot/telegram/handlers", "bot/telegram/moderation", "bot/telegram/answers", "bot/console")
"""Folders whose texts people read. The log, errors of the start and `check` are English."""


def sentences(source: str) -> Iterator[str]:
    """Literals of a module that read like a sentence, without docstrings and texts of errors."""
    tree = ast.parse(source)
    skipped = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            skipped |= {id(each) for each in ast.walk(node)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped
        if is_text and SENTENCE.search(node.value):
            yield node.value


class TestCompleteness:
    """Every text that people read is in the files of the languages."""

    def test_no_text_stands_in_the_code(self) -> None:
        found = [
            f"{path.relative_to(ROOT)}: {text}"
            for folder in WORDED
            for path in sorted((ROOT / folder).rglob("*.py"))
            for text in sentences(path.read_text(encoding="utf-8"))
        ]
        assert found == []

    def test_a_text_in_the_code_is_found(self) -> None:
        source = '"""The module itself."""\nraise E("This is an error")\nsend("There is no such provider.")'
        assert list(sentences(source)) == ["There is no such provider."]

    def test_russian_texts_are_russian(self) -> None:
        """A text that was copied and not translated has no Cyrillic letter; names and bare variables need none."""
        texts = Texts(strict=True)
        same = {
            key
            for key, names in variables("ru").items()
            if not re.search("[а-яё]", texts.get(key, "ru", **dict.fromkeys(names, "X")), re.IGNORECASE)
        }
        assert same == NEUTRAL

    def test_one_file_adds_a_language(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for language in LANGUAGES:
            (tmp_path / language).mkdir()
            (tmp_path / language / "main.ftl").write_text((LOCALES / language / "main.ftl").read_text())
        (tmp_path / "de").mkdir()
        (tmp_path / "de" / "main.ftl").write_text("language-name = Deutsch\nbutton-stop = Anhalten\n")
        monkeypatch.setattr(i18n, "_LOCALES", tmp_path)
        texts = Texts(strict=True)
        assert texts.languages == ("de", "en", "ru")
        assert texts.get("button-stop", "de-AT") == "Anhalten"
        assert texts.get("button-retry", "de") == "Retry", "what is missing is shown in English"
