// One association of dcmjs-dimse with what the JSON in the first argument asks, and JSON on standard output:
// {"statuses": [...], "found": [...], "stored": [...]}.  For tests/system/dcmjs.py, which describes the keys.
'use strict';

const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');

const job = JSON.parse(process.argv[2]);
// The modules are installed elsewhere: nothing of them lies beside this file.
const { Client, Dataset, constants, log, requests, responses } = createRequire(path.join(job.modules, 'x.js'))('dcmjs-dimse');
log.setLevel('silent'); // it would write to standard output

const MPPS = '1.2.840.10008.3.1.2.3.3';
const result = { statuses: [], found: [], stored: [] };
const client = new Client();

function request() {
  switch (job.operation) {
    case 'echo':
      return new requests.CEchoRequest();
    case 'store':
      return new requests.CStoreRequest(job.file);
    case 'find':
      return requests.CFindRequest.createStudyFindRequest(job.keys);
    case 'worklist':
      return requests.CFindRequest.createWorklistFindRequest(job.keys);
    case 'move':
      return requests.CMoveRequest.createStudyMoveRequest(job.destination, job.study);
    case 'get':
      return requests.CGetRequest.createStudyGetRequest(job.study);
    case 'create':
      return withDataset(new requests.NCreateRequest(MPPS, job.instance));
    case 'set':
      return withDataset(new requests.NSetRequest(MPPS, job.instance));
    default:
      throw new Error(`operation ${job.operation} is not known`);
  }
}

function withDataset(asked) {
  asked.setDataset(new Dataset(job.keys));
  return asked;
}

function fail(error) {
  process.stderr.write(`${error && error.message ? error.message : JSON.stringify(error)}\n`);
  process.exit(1);
}

function keep(asked, answer) {
  const dataset = asked.getDataset();
  const file = path.join(job.folder, `${dataset.getElement('SOPInstanceUID')}.dcm`);
  dataset.toFile(file);
  result.stored.push(file);
  const response = responses.CStoreResponse.fromRequest(asked);
  response.setStatus(constants.Status.Success);
  answer(response);
}

const asked = request();
asked.on('response', (response) => {
  result.statuses.push(response.getStatus());
  if (response.hasDataset()) {
    result.found.push(response.getDataset().getElements());
  }
});
client.on('cStoreRequest', keep);
let released = false;
client.on('associationReleased', () => (released = true));
// Once in four times it writes to the socket that it has just closed, whoever the server is: nobody misses that.
client.on('networkError', (error) => released || fail(error));
client.on('associationRejected', fail);
client.on('closed', () => fs.writeSync(1, JSON.stringify(result)));
client.addRequest(asked);
client.send('127.0.0.1', job.port, job.calling, job.called, job.tls ? { securityOptions: tls(job.tls) } : {});

function tls({ cert, key, ca }) {
  return {
    cert: fs.readFileSync(cert),
    key: fs.readFileSync(key),
    ca: fs.readFileSync(ca),
    rejectUnauthorized: true,
  };
}
