"""Captions of pictures: from a file, or from any vision model behind an OpenAI-compatible URL."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mattface.errors import InputError, UsageError

PROMPTS = {
    "alphaface": "Describe pose, background, facial accessories, and all obstacles covering the face area in the given "
    "face image. Only {words} words are allowed.",
    "facechanger": "Describe about pose, expression, facial attribute, and background about the given face image. The "
    "length of the description is {words} words.",
}
"""The papers' own questions (AlphaFace section 4.1, FaceChanger section IV-A-2)."""
AGAIN = " The description must not be longer than {words} words."
WORDS = 70
"""Most words of a caption: CLIP reads 77 tokens (FaceChanger section IV-A-2)."""
KEY = "MATTFACE_CAPTION_KEY"
"""Environment variable with the key of the service, where it wants one."""
Captioner = Callable[[str, bytes], str]
"""(name, JPEG or PNG bytes) -> caption; empty where there is none."""


def accept(text: str, words: int = WORDS) -> str:
    """The text with single spaces, if it has no more words than that; else nothing."""
    split = text.split()
    return " ".join(split) if len(split) <= words else ""


def from_file(path: Path, words: int = WORDS) -> Captioner:
    """Captions of a JSON object {NAME: TEXT}, or of lines NAME<tab>TEXT.

    Raises:
        InputError: the file is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            found = {str(k): str(v) for k, v in json.loads(text).items()}
        else:
            found = dict(line.split("\t", 1) for line in text.splitlines() if line.strip())
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} must hold captions, as JSON {{NAME: TEXT}} or lines NAME<tab>TEXT; it cannot be read ({error})."
        ) from error
    return lambda name, _: accept(found.get(name, ""), words)


@dataclass(frozen=True)
class Service:
    """A vision model behind a URL that ends before /chat/completions, as `Captioner`.

    Attributes:
        url: for example http://localhost:8000/v1.
        model: name that the service knows.
        words: most words of a caption; a longer one is asked for again once, and then rejected.
        timeout: seconds to wait for a reply.
        prompt: one of `PROMPTS`.
    """

    url: str
    model: str
    words: int = WORDS
    timeout: float = 120.0
    prompt: str = "alphaface"

    def __post_init__(self) -> None:
        if self.prompt not in PROMPTS:
            raise UsageError(f"caption prompt must be one of {', '.join(PROMPTS)}; got {self.prompt!r}.")

    def __call__(self, name: str, picture: bytes) -> str:
        """Asks for a caption.

        Raises:
            InputError: no reply, or none of the expected form.
        """
        question = PROMPTS[self.prompt].format(words=self.words)
        caption = accept(self._ask(question, picture), self.words)
        return caption or accept(self._ask(question + AGAIN.format(words=self.words), picture), self.words)

    def _ask(self, question: str, picture: bytes) -> str:
        kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
        data = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
        content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": data}}]
        body = {"model": self.model, "temperature": 0, "messages": [{"role": "user", "content": content}]}
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        address = self.url.rstrip("/") + "/chat/completions"
        if not address.startswith(("http://", "https://")):
            raise InputError(f"the caption service must be an http(s) URL; got {self.url!r}.")
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                found: Any = json.loads(reply.read())
            return " ".join(str(found["choices"][0]["message"]["content"]).split())
        except (urllib.error.URLError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"expected a caption from {address}; got {type(error).__name__}: {error}. "
                "Start the service, or give captions in a file: --captions FILE"
            ) from error
