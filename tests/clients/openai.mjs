// The official JavaScript client against the endpoint at OPENAI_BASE_URL; prints what it saw as JSON.
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ maxRetries: 0 });
const messages = [{ role: "user", content: "Hello?" }];
const seen = {};

const plain = await client.chat.completions.create({ model: "auto", messages });
seen.plain = [plain.model, plain.choices[0].message.content, plain.choices[0].finish_reason, plain.usage.total_tokens];

let text = "";
let finish = null;
let usage = null;
const options = { model: "auto", messages, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(options)) {
  text += chunk.choices[0]?.delta?.content ?? "";
  finish = chunk.choices[0]?.finish_reason ?? finish;
  usage = chunk.usage ?? usage;
}
seen.streamed = [text, finish, usage.total_tokens];

const tools = [
  {
    type: "function",
    function: {
      name: "current_time",
      parameters: { type: "object", properties: { zone: { type: "string" } } },
      parse: JSON.parse,
      function: ({ zone }) => `noon in ${zone}`,
    },
  },
];
seen.tools = await client.chat.completions.runTools({ model: "auto", messages, tools }).finalContent();
seen.streamed_tools = await client.chat.completions
  .runTools({ model: "auto", messages, tools, stream: true })
  .finalContent();

const models = [];
for await (const model of client.models.list()) models.push(model.id);
seen.models = models.includes("auto") && models.includes("b/m");

const vectors = await client.embeddings.create({ model: "auto", input: ["one", "three"] });
seen.embeddings = vectors.data.map((row) => Math.round(row.embedding[0]));

const file = await toFile(Buffer.from("OggS"), "note.ogg", { type: "audio/ogg" });
seen.transcription = (await client.audio.transcriptions.create({ model: "auto", file })).text;

async function refusal(asking) {
  try {
    await asking;
    return null;
  } catch (error) {
    return [error.status, error.code];
  }
}
const create = (fields, other = client) => other.chat.completions.create({ model: "auto", messages, ...fields });
seen.unknown_model = await refusal(create({ model: "gpt-9" }));
seen.two_answers = await refusal(create({ n: 2 }));
seen.wrong_token = await refusal(create({}, new OpenAI({ apiKey: "wrong-token-0123456789", maxRetries: 0 })));

const abandoned = await create({ stream: true });
for await (const _ of abandoned) break;
console.log(JSON.stringify(seen));
