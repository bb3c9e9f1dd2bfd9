"""Writes rendered.json: the templates of this folder, rendered by Hugging Face transformers.

python3 render.py, with transformers and jinja2 installed.
"""

import datetime
import json
import pathlib

import jinja2
from transformers.utils import chat_template_utils

FOLDER = pathlib.Path(__file__).parent
# The last second of 2025, UTC.
NOW = 1767225599


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


chat_template_utils.datetime = Clock


def render(template, conversation):
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [conversation["messages"]],
            chat_template=template.read_text(),
            add_generation_prompt=conversation["add_generation_prompt"],
            bos_token="<s>",
            eos_token="</s>",
            **conversation["variables"],
        )
    except jinja2.exceptions.TemplateError as error:
        return {"refused": str(error)}
    return {"text": rendered[0]}


conversations = json.loads((FOLDER / "conversations.json").read_text())
result = {
    template.stem: {name: render(template, each) for name, each in conversations.items()}
    for template in sorted(FOLDER.glob("*.jinja"))
}
(FOLDER / "rendered.json").write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n")
