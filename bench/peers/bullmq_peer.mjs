// BullMQ, 100 jobs at once, nothing kept of ended jobs.
// `node bullmq_peer.mjs worker`, or `node bullmq_peer.mjs MODE N FIRST` with the modes of produce.py.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(path.join(process.env.EMP_BENCH_NODE, 'package.json'));
const { Queue, Worker } = require('bullmq');

const at = new URL(process.env.EMP_BENCH_REDIS);
const connection = { host: at.hostname, port: Number(at.port), maxRetriesPerRequest: null };
const IN_FLIGHT = 100;
const BULK = 1000;

const stamp = Buffer.alloc(8);
function marks(name) {
  const file = fs.openSync(path.join(process.env.EMP_BENCH_MARKS, name), 'r+');
  return (job) => {
    stamp.writeBigInt64LE(process.hrtime.bigint());
    fs.writeSync(file, stamp, 0, 8, job * 8);
  };
}

async function put(queue, mode, count, first) {
  const enqueue = (job) => queue.add('noop', { job });
  const end = first + count;
  if (mode === 'one') {
    for (let job = first; job < end; job++) await enqueue(job);
  } else if (mode === 'flight') {
    let next = first;
    const lane = async () => { while (next < end) await enqueue(next++); };
    await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
  } else if (mode === 'bulk') {
    for (let k = first; k < end; k += BULK) {
      const some = Array.from({ length: Math.min(BULK, end - k) }, (_, i) => ({ name: 'noop', data: { job: k + i } }));
      await queue.addBulk(some);
    }
  } else if (mode === 'paced') {
    const enqueued = marks('enqueued');
    for (let job = first; job < end; job++) {
      enqueued(job);
      await enqueue(job);
      await sleep(job === first ? 1000 : 10 + Math.random() * 30);
    }
  } else {
    throw new Error(`no mode ${mode}`);
  }
}

const [mode, count, first] = process.argv.slice(2);
if (mode === 'worker') {
  const began = marks('began');
  const worker = new Worker('bench', async (job) => { began(job.data.job); },
    { connection, concurrency: 100, removeOnComplete: { count: 0 } });
  process.once('SIGTERM', async () => { await worker.close(); process.exit(0); });
} else {
  const queue = new Queue('bench', { connection, defaultJobOptions: { removeOnComplete: true, removeOnFail: true } });
  await queue.waitUntilReady();
  const began = process.hrtime.bigint();
  await put(queue, mode, Number(count), Number(first));
  const took = Number(process.hrtime.bigint() - began) / 1e9;
  console.log(JSON.stringify({ rate: Number(count) / took }));
  await queue.close();
}
