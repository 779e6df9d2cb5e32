// Server-sent events out of the body of an answer, as the HTML standard takes them apart (EventSource cannot POST).

// Calls `told(kind, data)` for each event, `data` being JSON, and `alive()` whenever anything comes. True: it came to its end.
export async function readEvents(body, told, alive) {
  const reader = body.getReader();
  const decoder = new TextDecoder(); // drops a BOM, and keeps the half of a character for the next piece
  const event = lines(told);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return true;
      alive();
      event(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever threw wants no more of it
  }
}

// A line ends with LF, CR or both, and either may come in the next piece.
function lines(told) {
  let rest = "";
  let skip = false; // the piece before ended with CR: an LF at the start of this one belongs to it
  let kind = "";
  let data = [];

  return (piece) => {
    if (!piece) return;
    rest += skip && piece[0] === "\n" ? piece.slice(1) : piece;
    skip = piece.endsWith("\r");
    const whole = rest.split(/\r\n|\n|\r/);
    rest = whole.pop();
    whole.forEach(take);
  };

  function take(line) {
    if (line === "") {
      if (data.length) told(kind || "message", JSON.parse(data.join("\n")));
      kind = "";
      data = [];
      return;
    }
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "event") kind = value;
    if (name === "data") data.push(value);
  }
}
