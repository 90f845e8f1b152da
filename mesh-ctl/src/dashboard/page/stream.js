// The server's events and answers. The token is in the address's fragment, and goes out in a header alone.

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
const headers = { authorization: `Bearer ${token}` };

// A refusal that waiting does not mend.
export class Refused extends Error {}

export async function ask(path, query) {
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`, { headers });
  const body = await answer.json();
  if (!answer.ok) throw new Refused(body.error);
  return body;
}

// Calls on.graph and on.mesh with each event's data, and on.state with a sentence; connects again when it breaks off.
export async function follow(on) {
  for (let pause = 500; ; pause = Math.min(pause * 2, 8000)) {
    try {
      const answer = await fetch("/api/stream", { headers });
      if (!answer.ok) throw new Refused((await answer.json()).error);
      on.state("live", false);
      pause = 500;
      await read(answer.body, on);
      on.state("mesh-ctl has ended; trying again", true);
    } catch (error) {
      if (error instanceof Refused) return on.state(error.message, true);
      on.state("mesh-ctl does not answer; trying again", true);
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

async function read(body, on) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    unread += value;
    for (let end; (end = unread.indexOf("\n\n")) >= 0; unread = unread.slice(end + 2)) {
      const fields = unread.slice(0, end).split("\n");
      const field = (name) => fields.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const data = field("data");
      if (data && data !== "null") on[field("event")]?.(JSON.parse(data));
    }
  }
}
