/* Numbers, and the data turned into visits, storages and colours. */
/* ---- numbers ---- */

function bytes(n) {
	const units = ['KiB', 'MiB', 'GiB', 'TiB'];
	if (n < 1024)
		return n + ' B';
	let unit = -1;
	do {
		n /= 1024;
		++unit;
	} while (n >= 1024 && unit < 3);
	return (n < 10 ? n.toFixed(2) : n < 100 ? n.toFixed(1) : n.toFixed(0)) + ' ' + units[unit];
}
function flops(n) {
	const units = ['', 'k', 'M', 'G', 'T', 'P'];
	let unit = 0;
	for (; n >= 1000 && unit < 5; ++unit)
		n /= 1000;
	return (unit === 0 ? n : n < 10 ? n.toFixed(2) : n < 100 ? n.toFixed(1) : n.toFixed(0)) + ' ' + units[unit] + 'FLOP';
}
const count = n => n.toLocaleString('en-US');
const times = (a, b) => (b ? a / b : 0).toFixed(a / b >= 10 ? 0 : 1) + ' x';
const plural = (n, word) => count(n) + ' ' + word + (n === 1 ? '' : 's');

/* ---- the data ---- */

const data = JSON.parse($('data').textContent);
const report = data.report;
const visits = data.model.visits;
const loops = data.model.loops;
const storages = new Map(report.storages.map(s => [s.id, s]));

/* "visit.7.blk.1.attn_q" -> visit 7, part attn_q. */
function parseOrigin(origin) {
	const m = /^visit\.(\d+)\.(?:blk\.\d+\.)?(.*)$/.exec(origin);
	return m ? {visit: Number(m[1]), part: m[2]} : {visit: -1, part: origin};
}

/* Layers are told apart by hue; few layers get the hues that differ most. */
function hueOf(layer) {
	const spread = [212, 28, 150, 330, 265, 95, 0, 185, 305, 60, 240, 120];
	return layer < spread.length && data.model.layers <= spread.length ? spread[layer] : Math.round(212 + layer * 137.508) % 360;
}
/* The layer that owns a weight; a visit's own weights have the colour of the layer that it visits; -1: the whole model's. */
function layerOf(name) {
	let m = /^(?:blk|model\.layers)\.(\d+)\./.exec(name);
	if (m)
		return Number(m[1]);
	m = /^(?:visit|steps)\.(\d+)\./.exec(name);
	if (!m)
		return -1;
	const visit = data.model.visit_stands_for.indexOf(Number(m[1]));
	return visit >= 0 ? visits[visit] : -1;
}
for (const s of storages.values()) {
	s.layer = s.kind === 'state' ? -1 : layerOf(s.name);
	s.users = [];
}
const loopOf = visit => {
	if (!loops.count || visit < loops.prelude || visit >= loops.prelude + loops.core * loops.count)
		return -1;
	return Math.floor((visit - loops.prelude) / loops.core);
};
function visitName(visit) {
	const loop = loops.count > 1 ? loopOf(visit) : -1;
	return 'visit ' + visit + ': layer ' + visits[visit] + (loop >= 0 ? ', loop ' + (loop + 1) + ' of ' + loops.count : '');
}

/* Steps in groups: one per visit, what comes before the first and after the last one. */
const groups = [];
report.buckets[0].steps.forEach((step, index) => {
	const {visit, part} = parseOrigin(step.origin);
	const last = groups[groups.length - 1];
	const between = visit < 0 && step.origin.startsWith('loop.') && last;
	let group = visit >= 0 ? groups.find(g => g.visit === visit) : between ? last : null;
	if (!group && visit < 0)
		group = last && last.visit < 0 ? last : null;
	if (!group) {
		group = {visit, layer: visit >= 0 ? visits[visit] : -1, steps: []};
		group.title = visit >= 0 ? 'visit ' + visit : groups.length ? 'head' : 'embedding';
		groups.push(group);
	}
	const entry = {index, step, part, group};
	group.steps.push(entry);
	for (const id of new Set(step.in))
		if (storages.has(id))
			storages.get(id).users.push(entry);
});
const entries = groups.flatMap(g => g.steps).sort((a, b) => a.index - b.index);
let bucket = 0; /* which of report.buckets the figures are for */
