"""Checks a server with the official Python package of OpenAI.

Usage: openai_client.py BASE_URL KEY MODEL

Every check is an assertion; the last line says that all passed.
"""

import sys

import openai

base_url, key, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60)
messages = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
]


def refused(error, ask):
    """What `ask` raises, which has to be an `error`."""
    try:
        ask()
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__}")


def models():
    listed = [each.id for each in client.models.list()]
    assert model in listed, listed
    assert client.models.retrieve(model).id == model


def completions():
    whole = client.completions.create(model=model, prompt="Hello", max_tokens=8, seed=1)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 8
    assert whole.usage.prompt_tokens == 5
    stream = client.completions.create(
        model=model,
        prompt="Hello",
        max_tokens=8,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == 8
    several = client.completions.create(
        model=model, prompt=["a", "b"], n=2, best_of=2, max_tokens=4, seed=1
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    ours = client.completions.create(
        model=model,
        prompt=[72, 105],
        max_tokens=4,
        extra_body={"ignore_eos": True, "min_tokens": 4, "top_k": 5, "repetition_penalty": 1.1},
    )
    assert ours.usage.completion_tokens == 4


def completion_logprobs():
    echoed = client.completions.create(
        model=model, prompt="ab", max_tokens=2, logprobs=2, echo=True, temperature=0
    )
    choice = echoed.choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert logprobs.text_offset == [0, 1, 2, 3]
    assert len(logprobs.top_logprobs[3]) >= 2


def chat():
    whole = client.chat.completions.create(
        model=model, messages=messages, max_completion_tokens=8, seed=2, n=2
    )
    assert whole.choices[0].message.role == "assistant"
    assert whole.usage.completion_tokens == 16
    stream = client.chat.completions.create(
        model=model,
        messages=messages,
        max_tokens=8,
        seed=2,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts, roles, reasons, usage = ["", ""], [], [], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert texts == [choice.message.content for choice in whole.choices]
    assert roles == ["assistant", "assistant"] and reasons == ["length", "length"]
    assert usage.completion_tokens == 16


def chat_stream_helper():
    # The scripted device ends a text after three tokens if the prompt has a `$`:
    # the helper takes an answer that was cut off for an error.
    short = [{"role": "user", "content": "Hello $"}]
    with client.chat.completions.stream(model=model, messages=short) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert len(final.choices[0].message.content) == 3


def chat_logprobs():
    answer = client.chat.completions.create(
        model=model, messages=messages, max_tokens=3, logprobs=True, top_logprobs=2
    )
    choice = answer.choices[0]
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens) == choice.message.content
    assert all(bytes(token.bytes).decode() == token.token for token in tokens)
    assert all(len(token.top_logprobs) == 2 for token in tokens)


def stop():
    ask = dict(model=model, messages=messages, max_tokens=60, temperature=0)
    text = client.chat.completions.create(**ask).choices[0].message.content
    word = text[30:33]
    stopped = client.chat.completions.create(**ask, stop=[word]).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.message.content == text[: text.index(word)]


def errors():
    create = client.completions.create
    raised = refused(openai.NotFoundError, lambda: create(model="gpt-4", prompt="a"))
    assert model in raised.message and raised.code == "model_not_found"
    raised = refused(
        openai.BadRequestError, lambda: create(model=model, prompt="a", temperature=-1)
    )
    assert raised.param == "temperature", raised.param
    raised = refused(
        openai.BadRequestError, lambda: create(model=model, prompt="a", max_tokens=10**6)
    )
    assert raised.code == "context_length_exceeded"
    stranger = openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0)
    refused(openai.AuthenticationError, lambda: stranger.models.list())
    raised = refused(
        openai.BadRequestError,
        lambda: client.chat.completions.create(
            model=model, messages=messages, response_format={"type": "json_object"}
        ),
    )
    assert raised.param == "response_format"
    raised = refused(openai.InternalServerError, lambda: create(model=model, prompt="\x01"))
    assert raised.code == "step_failed"
    failing = create(model=model, prompt="\x01", stream=True)
    refused(openai.APIError, lambda: list(failing))


checks = [
    models,
    completions,
    completion_logprobs,
    chat,
    chat_stream_helper,
    chat_logprobs,
    stop,
    errors,
]
for check in checks:
    check()
    print(check.__name__)
print("all checks passed")
