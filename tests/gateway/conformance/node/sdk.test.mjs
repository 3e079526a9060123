// What the official Node SDK sees of a gateway. Run by ../test_node_sdk.py, which starts the gateway and its backend.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI, { AzureOpenAI } from "openai";

const { IAS_TEST_URL, IAS_TEST_KEY, IAS_TEST_POOR_KEY } = process.env;
const messages = [{ role: "user", content: "Hi" }];
const client = new OpenAI({ baseURL: `${IAS_TEST_URL}/v1`, apiKey: IAS_TEST_KEY });

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

test("a whole answer", async () => {
  const { data, response, request_id: requestId } = await client.chat.completions
    .create({ model: "m", messages })
    .withResponse();
  assert.equal(data.choices[0].message.content, "Hello");
  assert.equal(data.usage.total_tokens, 15);
  assert.match(requestId, /^req_/);
  assert.match(response.headers.get("openai-processing-ms"), /^\d+$/);
});

test("18 a stream shows no usage unless it is asked for", async () => {
  const chunks = await collect(await client.chat.completions.create({ model: "m", messages, stream: true }));
  assert.equal(textOf(chunks), "Hello");
  assert.ok(chunks.every((chunk) => !("usage" in chunk)));
});

test("19 a stream shows usage once when it is asked for", async () => {
  const chunks = await collect(
    await client.chat.completions.create({
      model: "m",
      messages,
      stream: true,
      stream_options: { include_usage: true },
    }),
  );
  assert.equal(textOf(chunks), "Hello");
  assert.equal(chunks.at(-1).usage.total_tokens, 15);
  assert.equal(chunks.filter((chunk) => chunk.usage).length, 1);
});

test("13 comments in a silent stream go unnoticed", async () => {
  const response = await client.chat.completions
    .create({ model: "m", messages, stream: true, user: "hesitates" })
    .asResponse();
  const text = await response.text();
  assert.match(text, /^: keep-alive\n(: keep-alive\n)*data: /);
  assert.doesNotMatch(text, /: keep-alive\n\n/);
  const chunks = await collect(
    await client.chat.completions.create({ model: "m", messages, stream: true, user: "hesitates" }),
  );
  assert.equal(chunks.length, 3);
  assert.equal(textOf(chunks), "Hello");
  const stream = client.chat.completions.stream({ model: "m", messages, user: "hesitates" });
  assert.equal((await stream.finalChatCompletion()).choices[0].message.content, "Hello");
});

test("21 23 the SDK's own accumulator accepts a stream", async () => {
  const answer = await client.chat.completions.stream({ model: "m", messages, n: 2 }).finalChatCompletion();
  assert.deepEqual(
    answer.choices.map((choice) => [choice.message.role, choice.finish_reason]),
    [["assistant", "stop"], ["assistant", "stop"]],
  );
});

test("24 25 parallel tool calls are put together again", async () => {
  const stream = client.chat.completions.stream({ model: "m", messages, user: "tools" });
  const { tool_calls: calls } = (await stream.finalChatCompletion()).choices[0].message;
  assert.deepEqual(
    calls.map((call) => [call.id, call.function.name, JSON.parse(call.function.arguments)]),
    [["c0", "f0", { é: '"0"' }], ["c1", "f1", { é: '"1"' }]],
  );
});

test("39 a backend that dies in mid-stream is an error, not an end", async () => {
  const stream = await client.chat.completions.create({ model: "m", messages, stream: true, user: "dies" });
  await assert.rejects(collect(stream), (error) => error instanceof OpenAI.APIError && error.type === "server_error");
});

test("47 a stream may be left early", async () => {
  const stream = await client.chat.completions.create({ model: "m", messages, stream: true, user: "endless" });
  for await (const chunk of stream) {
    assert.equal(chunk.choices[0].delta.content, "a");
    break;
  }
});

test("78 83 errors have the SDK's classes", async () => {
  const wrong = client.withOptions({ apiKey: "nonsense" });
  await assert.rejects(wrong.chat.completions.create({ model: "m", messages }), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, "invalid_api_key");
    return true;
  });
  await assert.rejects(client.chat.completions.create({ model: "x", messages }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(client.chat.completions.create({ model: "m", messages: [] }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "messages");
    return true;
  });
});

test("86 an exhausted budget is asked about once", async () => {
  let calls = 0;
  const poor = client.withOptions({
    apiKey: IAS_TEST_POOR_KEY,
    fetch: (...request) => {
      calls += 1;
      return fetch(...request);
    },
  });
  await assert.rejects(poor.chat.completions.create({ model: "m", messages }), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.deepEqual([error.code, error.type], ["insufficient_quota", "insufficient_quota"]);
    return true;
  });
  assert.equal(calls, 1);
});

test("82 92 models are listed and found by names with slashes", async () => {
  const names = (await collect(await client.models.list())).map((model) => model.id);
  assert.deepEqual(names, ["m", "meta/llama:8b"]);
  assert.equal((await client.models.retrieve("meta/llama:8b")).id, "meta/llama:8b");
  await assert.rejects(client.models.retrieve("absent"), OpenAI.NotFoundError);
});

test("91 embeddings travel in base64 by default", async () => {
  const answer = await client.embeddings.create({ model: "m", input: "Hi" });
  assert.deepEqual(answer.data[0].embedding, [1, 2]);
});

test("77 Azure's client", async () => {
  const azure = new AzureOpenAI({
    endpoint: IAS_TEST_URL,
    apiKey: IAS_TEST_KEY,
    apiVersion: "2024-10-21",
  });
  const answer = await azure.chat.completions.create({ model: "m", messages });
  assert.equal(answer.choices[0].message.content, "Hello");
  const chunks = await collect(await azure.chat.completions.create({ model: "m", messages, stream: true }));
  assert.equal(textOf(chunks), "Hello");
});

test("52 a repeated request gets the answer of the first", async () => {
  const headers = { "Idempotency-Key": "node" };
  const first = await client.chat.completions.create({ model: "m", messages, user: "counted" }, { headers });
  const again = await client.chat.completions.create({ model: "m", messages, user: "counted" }, { headers });
  assert.equal(again.id, first.id);
});
