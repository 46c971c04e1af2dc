// Asks this server, and shows what it says: as text, whatever is in it.
"use strict";

const at = (id) => document.getElementById(id);

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

async function told(path, options) {
  const reply = await fetch(path, options);
  const said = await reply.json();
  if (!reply.ok) throw new Error(said.error.message);
  return said;
}

function about(passage) {
  const uses = [];
  if (passage.adapter) uses.push("its adapter answered");
  if (passage.in_prompt) uses.push("it was in the prompt");
  const score = passage.score === null ? "" : `, BM25 ${passage.score.toFixed(2)}`;
  return `${passage.name}${score}: ${uses.join(", and ") || "not used"}`;
}

function show(answer, passages, took, failed) {
  at("answer").textContent = answer;
  at("answer").className = failed ? "failed" : "";
  at("took").textContent = took;
  at("used").hidden = !passages.length;
  at("passages").replaceChildren(
    ...passages.map((passage) => {
      const item = element("li", passage.text ?? "(no text)");
      item.append(element("div", about(passage), "name"));
      return item;
    }),
  );
  at("reply").hidden = false;
}

async function ask(event) {
  event.preventDefault();
  at("ask").disabled = true;
  const began = performance.now();
  try {
    const said = await told("v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        model: at("method").value,
        messages: [{ role: "user", content: at("question").value }],
      }),
    });
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const took = `${said.usage.completion_tokens} tokens in ${seconds} s`;
    show(said.choices[0].message.content.trim() || "(nothing)", said.lorary.passages, took, false);
  } catch (error) {
    show(error.message, [], "", true);
  } finally {
    at("ask").disabled = false;
  }
}

async function begin() {
  try {
    for (const model of (await told("v1/models")).data) {
      const option = element("option", `${model.lorary.title} (${model.id})`);
      option.value = model.id;
      option.selected = model.id === "prag";
      at("method").append(option);
    }
    at("form").addEventListener("submit", ask);
  } catch (error) {
    show(error.message, [], "", true);
  }
}

begin();
