// node-hl7-client as a sender: the messages in the JSON file that the first argument names, one after the other on one
// connection, each after the answer to the one before.  Writes JSON: {"sent": [...], "answers": [...]}.
// For tests/system/hl7_npm.py, which describes the keys.
'use strict';

const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');

const job = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const { Client, Message } = createRequire(path.join(job.modules, 'x.js'))('node-hl7-client');

const tls = job.tls && {
  cert: fs.readFileSync(job.tls.cert),
  key: fs.readFileSync(job.tls.key),
  ca: fs.readFileSync(job.tls.ca),
  servername: 'localhost',
  rejectUnauthorized: true,
};
const result = { sent: [], answers: [] };
// The package sends only messages of the version that its client was made for.
const client = new Client({ host: '127.0.0.1', version: job.version, ...(tls ? { tls } : {}) });
const connection = client.createConnection({ port: job.port, waitAck: true }, (answer) => {
  result.answers.push(answer.getMessage().toString());
  next();
});

function next() {
  const text = job.messages[result.sent.length];
  if (text === undefined) {
    connection.close();
    fs.writeSync(1, JSON.stringify(result));
    process.exit(0);
  }
  const message = new Message({ text });
  result.sent.push(message.toString());
  connection.sendMessage(message).catch(fail);
}

function fail(error) {
  process.stderr.write(`${error && error.message}\n`);
  process.exit(1);
}

connection.once('connect', next);
connection.on('data.error', fail);
connection.on('client.error', fail);
