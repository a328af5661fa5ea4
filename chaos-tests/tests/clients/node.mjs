// The official JavaScript client, used as its documentation and examples use it.
//
//     node node.mjs MODULE KUBECONFIG
//
// prints the names of all cases as a line of JSON, then runs those whose names it reads, each in a namespace of its own
// that is deleted whatever happens, and prints a line about each. `node.rs` is the other end.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

const k8s = await import(pathToFileURL(process.argv[2]).href);
const LIMIT = 40_000;
const kc = new k8s.KubeConfig();
kc.loadFromFile(process.argv[3]);
const core = kc.makeApiClient(k8s.CoreV1Api);
const cases = {};

async function eventually(check, what = 'it', limit = 30_000) {
    const deadline = Date.now() + limit;
    for (;;) {
        const value = await check();
        if (value) return value;
        assert(Date.now() < deadline, `${what}: not within ${limit} ms`);
        await sleep(50);
    }
}

/** Expects an ApiException with this code and reason; returns the Status in its body. */
async function refused(code, reason, promise) {
    const error = await promise.then(
        (answer) => assert.fail(`should be refused with ${code}, but: ${JSON.stringify(answer)}`),
        (error) => error,
    );
    if (error instanceof assert.AssertionError) throw error;
    const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    assert.deepEqual([error.code, body.reason, body.kind], [code, reason, 'Status'], String(error));
    return body;
}

const configMap = (name, data = {}, labels = {}) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, labels }, data });

const pod = (name, command, container = {}) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: {
        terminationGracePeriodSeconds: 0,
        restartPolicy: 'Never',
        containers: [{ name: 'main', image: 'busybox:1.35', imagePullPolicy: 'IfNotPresent', command, ...container }],
    },
});

const phase = async (namespace, name) => (await core.readNamespacedPod({ name, namespace })).status.phase;

async function running(namespace, name, command, container) {
    await core.createNamespacedPod({ namespace, body: pod(name, command, container) });
    await eventually(async () => (await phase(namespace, name)) === 'Running', `pod ${name}`);
}

/** A stream that keeps what is written to it. */
function sink() {
    const stream = new PassThrough();
    stream.text = '';
    stream.on('data', (chunk) => (stream.text += chunk));
    return stream;
}

const patched = (type) => k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy[type]);

cases.node_life_of_an_object = async (namespace) => {
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('a', { x: '1' }) });
    assert.equal(made.metadata.namespace, namespace);
    assert(made.metadata.creationTimestamp instanceof Date);
    const read = await core.readNamespacedConfigMap({ name: 'a', namespace });
    assert.deepEqual(read.data, { x: '1' });
    read.data.y = '2';
    const replaced = await core.replaceNamespacedConfigMap({ name: 'a', namespace, body: read });
    assert.deepEqual(replaced.data, { x: '1', y: '2' });
    // Its version is not the newest any more.
    read.data.y = '3';
    await refused(409, 'Conflict', core.replaceNamespacedConfigMap({ name: 'a', namespace, body: read }));
    await refused(409, 'AlreadyExists', core.createNamespacedConfigMap({ namespace, body: configMap('a') }));
    await refused(422, 'Invalid', core.createNamespacedConfigMap({ namespace, body: configMap('No_Name') }));
    await core.deleteNamespacedConfigMap({ name: 'a', namespace });
    const gone = await refused(404, 'NotFound', core.readNamespacedConfigMap({ name: 'a', namespace }));
    assert.deepEqual([gone.details.kind, gone.details.name], ['configmaps', 'a']);
};

cases.node_patches = async (namespace) => {
    const apps = kc.makeApiClient(k8s.AppsV1Api);
    const template = { metadata: { labels: { app: 'd' } }, spec: { containers: [{ name: 'c', image: 'busybox:1.35' }] } };
    const spec = { replicas: 0, selector: { matchLabels: { app: 'd' } }, template };
    await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'd' }, spec } });
    const patch = (body, type, more = {}) => apps.patchNamespacedDeployment({ name: 'd', namespace, body, ...more }, patched(type));
    const json = await patch([{ op: 'add', path: '/metadata/labels', value: { a: 'b' } }], 'JsonPatch');
    assert.deepEqual(json.metadata.labels, { a: 'b' });
    const merge = await patch({ metadata: { labels: { a: null, c: 'd' } } }, 'MergePatch');
    assert.deepEqual(merge.metadata.labels, { c: 'd' });
    const container = { name: 'c', env: [{ name: 'A', value: '1' }] };
    const strategic = await patch({ spec: { template: { spec: { containers: [container] } } } }, 'StrategicMergePatch');
    const [first] = strategic.spec.template.spec.containers;
    assert.deepEqual([first.image, first.env[0].value], ['busybox:1.35', '1']);
    const applied = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'd', labels: { e: 'f' } } };
    const owned = await patch(applied, 'ServerSideApply', { fieldManager: 'node', force: true });
    assert.equal(owned.metadata.labels.e, 'f');
    assert(owned.metadata.managedFields.some((entry) => entry.manager === 'node' && entry.operation === 'Apply'));
    const conflict = { ...applied, metadata: { name: 'd', labels: { e: 'g' } } };
    await refused(409, 'Conflict', patch(conflict, 'ServerSideApply', { fieldManager: 'other' }));
    await eventually(async () => {
        const scale = await apps.readNamespacedDeploymentScale({ name: 'd', namespace });
        scale.spec.replicas = 1;
        // The controller may write in between: then it is read again, as one does.
        const put = apps.replaceNamespacedDeploymentScale({ name: 'd', namespace, body: scale });
        return put.then(() => true, (error) => (error.code === 409 ? false : Promise.reject(error)));
    }, 'the new scale');
    assert.equal((await apps.readNamespacedDeployment({ name: 'd', namespace })).spec.replicas, 1);
};

cases.node_lists_by_selector_and_page = async (namespace) => {
    for (const name of ['a', 'b', 'c', 'd']) {
        await core.createNamespacedConfigMap({ namespace, body: configMap(name, {}, { s: name < 'c' ? '1' : '2' }) });
    }
    const names = async (more) => (await core.listNamespacedConfigMap({ namespace, ...more })).items.map((i) => i.metadata.name);
    assert.deepEqual(await names({ labelSelector: 's=1' }), ['a', 'b']);
    assert.deepEqual(await names({ fieldSelector: 'metadata.name=c' }), ['c']);
    const found = [];
    let _continue;
    do {
        const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 's', limit: 3, _continue });
        found.push(...page.items.map((item) => item.metadata.name));
        _continue = page.metadata._continue;
    } while (_continue);
    assert.deepEqual(found, ['a', 'b', 'c', 'd']);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 's=2' });
    assert.deepEqual(await names({ labelSelector: 's' }), ['a', 'b']);
};

cases.node_dynamic_objects = async (namespace) => {
    const client = k8s.KubernetesObjectApi.makeApiClient(kc);
    const text = `
apiVersion: v1
kind: ConfigMap
metadata: {name: y, namespace: ${namespace}}
data: {a: "1"}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: y, namespace: ${namespace}}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}}}}
`;
    const specs = k8s.loadAllYaml(text);
    for (const spec of specs) {
        await client.create(spec);
        const read = await client.read(spec);
        assert.deepEqual([read.kind, read.metadata.name], [spec.kind, 'y']);
    }
    const changed = await client.patch({ ...specs[0], data: { a: '2' } }, undefined, undefined, 'node', undefined, k8s.PatchStrategy.MergePatch);
    assert.deepEqual(changed.data, { a: '2' });
    const list = await client.list('batch/v1', 'CronJob', namespace);
    assert.equal(list.items.length, 1);
    const replaced = await client.replace({ ...changed, data: { b: '3' } });
    assert.deepEqual(replaced.data, { b: '3' });
    for (const spec of specs) await client.delete(spec);
    await refused(404, 'NotFound', client.read(specs[0]));
    await assert.rejects(client.create({ apiVersion: 'v1', kind: 'Nope', metadata: { name: 'x' } }), /Unrecognized API version and kind/);
};

/** Watches until `enough` says so; returns what was seen. */
async function watched(url, query, enough) {
    const seen = [];
    const watch = new k8s.Watch(kc);
    let controller;
    const ended = new Promise((resolve) => {
        const event = (type, object) => {
            seen.push([type, object]);
            if (enough(seen)) controller.abort();
        };
        watch.watch(url, query, event, resolve).then((given) => (controller = given));
    });
    const error = await ended;
    return { seen, error };
}

cases.node_watches_and_resumes = async (namespace) => {
    const { metadata } = await core.listNamespacedConfigMap({ namespace });
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('w', { a: '1' }) });
    await core.patchNamespacedConfigMap({ name: 'w', namespace, body: { data: { a: '2' } } }, patched('MergePatch'));
    await core.deleteNamespacedConfigMap({ name: 'w', namespace });
    const url = `/api/v1/namespaces/${namespace}/configmaps`;
    const events = async (resourceVersion) => {
        const query = { resourceVersion, fieldSelector: 'metadata.name=w', timeoutSeconds: 5 };
        const { seen } = await watched(url, query, (seen) => seen.at(-1)[0] === 'DELETED');
        return seen.map(([type, object]) => [type, object.data.a]);
    };
    assert.deepEqual(await events(metadata.resourceVersion), [['ADDED', '1'], ['MODIFIED', '2'], ['DELETED', '2']]);
    assert.deepEqual(await events(made.metadata.resourceVersion), [['MODIFIED', '2'], ['DELETED', '2']]);
    const { seen } = await watched(url, { timeoutSeconds: 1, fieldSelector: 'metadata.name=none' }, () => false);
    assert.deepEqual(seen, []);
    const bad = await watched(url, { resourceVersion: 'abc' }, () => false);
    assert.match(String(bad.error), /Bad Request|400/);
};

cases.node_informer = async (namespace) => {
    const labelSelector = 'watched=yes';
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector });
    const informer = k8s.makeInformer(kc, `/api/v1/namespaces/${namespace}/configmaps`, list, labelSelector);
    const seen = [];
    for (const verb of ['add', 'update', 'delete']) {
        informer.on(verb, (object) => seen.push(`${verb} ${object.metadata.name} ${object.data?.a}`));
    }
    informer.on('error', (error) => error && error.name !== 'AbortError' && seen.push(`error ${error}`));
    const watchedMap = (name, a) => configMap(name, { a }, { watched: 'yes' });
    await core.createNamespacedConfigMap({ namespace, body: watchedMap('before', '0') });
    await informer.start();
    await core.createNamespacedConfigMap({ namespace, body: watchedMap('i', '1') });
    await core.createNamespacedConfigMap({ namespace, body: configMap('other', { a: 'x' }) });
    await eventually(() => seen.includes('add i 1'), 'the new object');
    await core.patchNamespacedConfigMap({ name: 'i', namespace, body: { data: { a: '2' } } }, patched('MergePatch'));
    await eventually(() => seen.includes('update i 2'), 'the change');
    assert.equal(informer.get('i', namespace).data.a, '2');
    await core.deleteNamespacedConfigMap({ name: 'i', namespace });
    await eventually(() => seen.includes('delete i 2'), 'the end');
    assert.deepEqual(informer.list(namespace).map((object) => object.metadata.name), ['before']);
    // An informer that is started again goes on with what it knows.
    await informer.stop();
    await core.createNamespacedConfigMap({ namespace, body: watchedMap('later', '3') });
    await informer.start();
    await eventually(() => seen.includes('add later 3'), 'what came while it was stopped');
    await informer.stop();
    assert.deepEqual(seen, ['add before 0', 'add i 1', 'update i 2', 'delete i 2', 'add later 3']);
};

/** Holds a Lease as client-go's leader election does; the library has none of its own. */
async function campaign(namespace, identity, leads) {
    const api = kc.makeApiClient(k8s.CoordinationV1Api);
    const seconds = 2;
    for (;;) {
        const now = new k8s.V1MicroTime(Date.now());
        const mine = { holderIdentity: identity, leaseDurationSeconds: seconds, acquireTime: now, renewTime: now };
        try {
            const lease = await api.readNamespacedLease({ name: 'elect', namespace });
            const age = Date.now() - new Date(lease.spec.renewTime).getTime();
            if (lease.spec.holderIdentity !== identity && lease.spec.holderIdentity && age < seconds * 1000) {
                await sleep(100);
                continue;
            }
            const taken = lease.spec.holderIdentity !== identity;
            const transitions = (lease.spec.leaseTransitions ?? 0) + (taken ? 1 : 0);
            const body = { ...lease, spec: { ...mine, leaseTransitions: transitions } };
            if (!taken) body.spec.acquireTime = lease.spec.acquireTime;
            await api.replaceNamespacedLease({ name: 'elect', namespace, body });
        } catch (error) {
            if (error.code === 409) continue;
            if (error.code !== 404) throw error;
            try {
                await api.createNamespacedLease({ namespace, body: { metadata: { name: 'elect' }, spec: { ...mine, leaseTransitions: 0 } } });
            } catch (second) {
                if (second.code === 409) continue;
                throw second;
            }
        }
        if (!(await leads(identity))) return;
        await sleep(300);
    }
}

cases.node_elects_a_leader = async (namespace) => {
    const terms = [];
    let rounds = 0;
    const leads = async (identity) => {
        if (terms.at(-1) !== identity) terms.push(identity);
        rounds += 1;
        // The first leader dies in its third round: it neither renews nor gives back what it holds.
        return terms.length === 1 ? rounds < 3 : rounds < 6;
    };
    await Promise.all([campaign(namespace, 'one', leads), campaign(namespace, 'two', leads)]);
    assert.equal(terms.length, 2, String(terms));
    assert.notEqual(terms[0], terms[1]);
    const lease = await kc.makeApiClient(k8s.CoordinationV1Api).readNamespacedLease({ name: 'elect', namespace });
    assert.deepEqual([lease.spec.holderIdentity, lease.spec.leaseTransitions], [terms[1], 1]);
};

/** Runs a command; returns what it wrote and how it ended. */
async function exec(namespace, name, command, input = null, tty = false) {
    const [out, err] = [sink(), sink()];
    const status = await new Promise((resolve, reject) => {
        new k8s.Exec(kc).exec(namespace, name, 'main', command, out, tty ? null : err, input, tty, resolve).catch(reject);
    });
    return { out: out.text, err: err.text, status };
}

cases.node_exec = async (namespace) => {
    await running(namespace, 'x', ['sleep', '1000']);
    const both = await exec(namespace, 'x', ['sh', '-c', 'echo out; echo err >&2; exit 3']);
    assert.deepEqual([both.out, both.err, both.status.status], ['out\n', 'err\n', 'Failure']);
    assert.deepEqual(both.status.details.causes, [{ reason: 'ExitCode', message: '3' }]);
    const big = await exec(namespace, 'x', ['sh', '-c', "head -c 300000 /dev/zero | tr '\\0' x"]);
    assert.deepEqual([big.out.length, big.status.status], [300000, 'Success']);
    const input = new PassThrough();
    const shell = exec(namespace, 'x', ['sh'], input);
    input.write('hostname\nexit 5\n');
    const said = await shell;
    assert.deepEqual([said.out, said.status.details.causes[0].message], ['x\n', '5']);
    const nobody = new k8s.Exec(kc).exec(namespace, 'none', 'main', ['true'], sink(), sink(), null, false);
    const error = await nobody.then(() => assert.fail('a session with nobody'), (error) => error);
    assert.match(String(error.message), /Unexpected server response: 404/);
};

cases.node_attach = async (namespace) => {
    const command = ['sh', '-c', 'while read line; do echo got $line; done'];
    await running(namespace, 'y', command, { stdin: true, stdinOnce: true });
    const [out, input] = [sink(), new PassThrough()];
    const socket = await new k8s.Attach(kc).attach(namespace, 'y', 'main', out, sink(), input, false);
    input.write('this\n');
    await eventually(() => out.text === 'got this\n', 'the answer');
    socket.close();
    await eventually(async () => (await phase(namespace, 'y')) === 'Succeeded', 'the end of stdin');
};

cases.node_logs = async (namespace) => {
    await running(namespace, 'l', ['sh', '-c', 'for i in 1 2 3; do echo line $i; sleep 0.3; done; sleep 1000']);
    const followed = sink();
    await new k8s.Log(kc).log(namespace, 'l', 'main', followed, { follow: true });
    await eventually(() => followed.text === 'line 1\nline 2\nline 3\n', 'the whole log');
    const text = await core.readNamespacedPodLog({ name: 'l', namespace, tailLines: 1 });
    assert.equal(text, 'line 3\n');
    const wrong = core.readNamespacedPodLog({ name: 'l', namespace, container: 'other' });
    await refused(400, 'BadRequest', wrong);
};

cases.node_port_forward = async (namespace) => {
    await running(namespace, 'p', ['sh', '-c', 'mkdir /w; echo hello > /w/index.html; exec httpd -f -p 8080 -h /w']);
    const fetched = async () => {
        const [out, input] = [sink(), new PassThrough()];
        const socket = await new k8s.PortForward(kc).portForward(namespace, 'p', [8080], out, null, input);
        input.write('GET / HTTP/1.0\r\n\r\n');
        await eventually(() => out.text.endsWith('hello\n') || socket.readyState > 1, 'an answer', 2000).catch(() => {});
        socket.close();
        return out.text.includes('200 OK') && out.text.endsWith('hello\n');
    };
    await eventually(fetched, 'an answer', 10_000);
};

cases.node_copies_files = async (namespace) => {
    await running(namespace, 'f', ['sleep', '1000']);
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'trireme-node-'));
    try {
        fs.writeFileSync(path.join(folder, 'there.txt'), 'x'.repeat(100_000));
        await new k8s.Cp(kc).cpToPod(namespace, 'f', 'main', folder, '/tmp');
        const landed = async () => (await exec(namespace, 'f', ['wc', '-c', '/tmp/there.txt'])).out.startsWith('100000 ');
        await eventually(landed, 'the file in the container');
    } finally {
        fs.rmSync(folder, { recursive: true });
    }
};

cases.node_evicts = async (namespace) => {
    await running(namespace, 'e', ['sleep', '1000']);
    await core.createNamespacedPodEviction({ name: 'e', namespace, body: { metadata: { name: 'e', namespace } } });
    const gone = async () => !(await core.listNamespacedPod({ namespace })).items.some((item) => item.metadata.name === 'e');
    await eventually(gone, 'the evicted pod goes');
};

cases.node_reads_versions_groups_and_health = async () => {
    const version = await kc.makeApiClient(k8s.VersionApi).getCode();
    assert.deepEqual([version.major, version.minor], ['1', '36']);
    const groups = await kc.makeApiClient(k8s.ApisApi).getAPIVersions();
    assert(groups.groups.some((group) => group.name === 'apps' && group.preferredVersion.version === 'v1'));
    const resources = await kc.makeApiClient(k8s.AppsV1Api).getAPIResources();
    assert(resources.resources.some((resource) => resource.name === 'deployments/scale'));
    const health = new k8s.Health(kc);
    assert.deepEqual([await health.readyz({}), await health.livez({})], [true, true]);
    assert(kc.getContexts().some((context) => context.name === kc.getCurrentContext()));
    assert((await k8s.topNodes(core)).every((node) => node.Node.status.nodeInfo.kubeletVersion));
};

cases.node_custom_objects_that_are_not_there = async (namespace) => {
    const custom = kc.makeApiClient(k8s.CustomObjectsApi);
    const where = { group: 'example.org', version: 'v1', namespace, plural: 'things' };
    const error = await custom.listNamespacedCustomObject(where).then(() => assert.fail('listed'), (error) => error);
    assert.equal(error.code, 404, String(error));
    // What is there, it reaches as well.
    const lists = await custom.listNamespacedCustomObject({ group: 'apps', version: 'v1', namespace, plural: 'deployments' });
    assert.deepEqual(lists.items, []);
};

async function run(name) {
    const namespace = `js-${randomUUID().slice(0, 8)}`;
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    const late = new AbortController();
    try {
        const limit = sleep(LIMIT, undefined, { signal: late.signal }).then(() => assert.fail(`longer than ${LIMIT} ms`));
        await Promise.race([cases[name](namespace), limit]);
    } finally {
        late.abort();
        await core.deleteNamespace({ name: namespace });
    }
}

// What a case leaves open must not end the others.
process.on('unhandledRejection', (error) => console.error('not handled:', error?.name === 'AbortError' ? 'late' : error));
console.log(JSON.stringify(Object.keys(cases).sort()));
for await (const line of readline.createInterface({ input: process.stdin })) {
    const [name, begun] = [line.trim(), Date.now()];
    let why = null;
    try {
        await run(name);
    } catch (error) {
        why = String(error.stack ?? error).slice(0, 6000);
    }
    console.log(JSON.stringify({ case: name, seconds: (Date.now() - begun) / 1000, why }));
}
process.exit(0);
