// node-hl7-server as a receiver: writes a line of JSON when it listens, and one for each message: {"raw": text}.
// For tests/system/hl7_npm.py, which describes the keys of the JSON file that the first argument names.
'use strict';

const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');

const job = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const { Server } = createRequire(path.join(job.modules, 'x.js'))('node-hl7-server');

const tls = job.tls && {
  cert: fs.readFileSync(job.tls.cert),
  key: fs.readFileSync(job.tls.key),
  ca: fs.readFileSync(job.tls.ca),
  requestCert: true,
};
const server = new Server({ bindAddress: '127.0.0.1', ...(tls ? { tls } : {}) });

function say(what) {
  fs.writeSync(1, `${JSON.stringify(what)}\n`);
}

const inbound = server.createInbound({ port: job.port }, async (_, answer) => {
  await answer.sendResponse('AA');
  // This version keeps what it was sent on a connection, and answers all of it again with the next message; a
  // connection for each message is how it can be used.
  if (!job.keepsConnections) {
    answer._socket.end();
  }
});
inbound.on('data.raw', (raw) => say({ raw }));
inbound.on('listen', () => say({ listening: job.port }));
inbound.on('data.error', (error) => process.stderr.write(`${error.message}\n`));
