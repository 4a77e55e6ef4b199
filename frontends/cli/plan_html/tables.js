/* The cards with the sums, and the tables under the pictures. */

function bar(label, value, largest, ...pieces) {
	const track = el('span', {class: 'track'});
	for (const [n, colour] of pieces)
		track.append(el('span', {class: 'fill', style: `width:${largest ? 100 * n / largest : 0}%;background:${colour}`}));
	return el('div', {class: 'bar'}, el('span', {text: label}), track, el('span', {class: 'value', text: value}));
}
function card(title, big, of, ...rest) {
	return el('div', {class: 'card'}, el('h3', {text: title}),
		el('div', {}, el('span', {class: 'big', text: big}), el('span', {class: 'of', text: of})), ...rest);
}
const note = (...parts) => el('p', {class: 'note'}, ...parts.map(p => (typeof p === 'string' ? p : el('b', {text: p.b}))));
const accent = 'var(--accent)', soft = 'var(--lora)', kvColour = 'var(--kv)';

function weightsCard() {
	const m = report.memory, saved = m.weight_bytes_by_use - m.weight_bytes;
	return card('Weights', bytes(m.weight_bytes), 'stored once',
		bar('stored', bytes(m.weight_bytes), m.weight_bytes_by_use, [m.weight_bytes, accent]),
		bar('as used', bytes(m.weight_bytes_by_use), m.weight_bytes_by_use, [m.weight_bytes, accent], [saved, 'var(--reread)']),
		note(`${plural(m.weight_storages, 'tensor')}, ${plural(m.weight_uses, 'use')}: sharing saves `, {b: bytes(saved)},
			m.adapter_bytes ? `. LoRA of the visits: ${bytes(m.adapter_bytes)} more` : '', m.packed_bytes ? `. Packed for kernels: ${bytes(m.packed_bytes)} more` : ''));
}
function kvCard() {
	const kv = data.kv, policy = {visit: 'one slot per visit', layer: 'one slot per layer, the last visit writes', first: 'one slot per layer, its first visit writes',
		group: `${kv.group} adjacent layers share a slot`, model: "slots as the model's file says"}[kv.policy] || kv.policy;
	const slots = [...storages.values()].filter(s => s.kind === 'state').length / 2; /* keys and values */
	return card('KV cache', bytes(kv.bytes_per_token), 'per token',
		bar(data.context ? count(data.context) + ' tokens' : 'window', bytes(kv.bytes), Math.max(kv.bytes, report.memory.weight_bytes), [kv.bytes, kvColour]),
		bar('weights', bytes(report.memory.weight_bytes), Math.max(kv.bytes, report.memory.weight_bytes), [report.memory.weight_bytes, accent]),
		note(`keys ${kv.k}, values ${kv.v}; ${policy}; ${plural(slots, 'slot')}`, kv.window ? `; a window of ${count(kv.window)} tokens, ${kv.sinks} pinned` : ''));
}
function arenaCard() {
	const m = report.memory, gap = m.arena_lower_bound ? 100 * (m.arena_bytes / m.arena_lower_bound - 1) : 0;
	const common = Math.max(...report.buckets.map(b => b.about.arena_in_order || 0));
	return card('Activations', bytes(m.arena_bytes), gap < 0.005 ? 'proven: no plan needs less' : gap.toFixed(2) + ' % above the lower bound',
		bar('arena', bytes(m.arena_bytes), m.arena_unshared, [m.arena_bytes, 'var(--act)']),
		bar('without sharing', bytes(m.arena_unshared), m.arena_unshared, [m.arena_bytes, 'var(--act)'], [m.arena_unshared - m.arena_bytes, soft]),
		note(`lower bound ${bytes(m.arena_lower_bound)}`, common ? `; best fit in execution order would take ${bytes(common)}` : '', `; sharing makes it `, {b: times(m.arena_unshared, m.arena_bytes)}, ' smaller'));
}
/* Bytes read by a run: weights once, weights again, KV, activations. */
function runCard(title, of, run) {
	const again = run.weight_bytes_read - run.weight_bytes_unique;
	const rest = Math.max(0, run.read_bytes - run.weight_bytes_read - run.state_bytes_read);
	return card(title, flops(run.flops), of,
		bar('bytes read', bytes(run.read_bytes), run.read_bytes, [run.weight_bytes_unique, accent], [again, 'var(--reread)'],
			[run.state_bytes_read, kvColour], [rest, 'var(--act)']),
		note('weights ', {b: bytes(run.weight_bytes_unique)}, ` once (blue), ${bytes(again)} again (orange), KV ${bytes(run.state_bytes_read)} (green), activations ${bytes(rest)}`));
}
function totalCard() {
	const m = report.memory, parts = [['weights', m.weight_bytes, accent], ['LoRA', m.adapter_bytes, soft], ['packed', m.packed_bytes, 'var(--reread)'],
		['KV cache', m.state_bytes, kvColour], ['arena', m.arena_bytes, 'var(--act)'], ['in, out', m.io_bytes, 'var(--ink)']].filter(p => p[1] > 0);
	return card('Memory in all', bytes(data.total_bytes), 'for one session',
		bar('sum', '', data.total_bytes, ...parts.map(p => [p[1], p[2]])),
		note(parts.map(p => `${p[0]} ${bytes(p[1])}`).join(' + ')));
}

function drawCards() {
	const d = report.decode, p = report.prefill;
	$('cards').replaceChildren(weightsCard(), kvCard(), arenaCard(),
		runCard('One token (decode)', `after ${count(d.context)} positions`, d),
		...(p ? [runCard(`A prompt of ${plural(p.prompt, 'token')} (prefill)`, `in ${plural(p.runs, 'run')}`, p)] : []), totalCard());
}

function drawHead() {
	const m = data.model, used = report.memory.weight_bytes_by_use / Math.max(1, report.memory.weight_bytes);
	const name = m.path.replace(/.*\//, '');
	document.title = 'knit plan: ' + name;
	$('title').textContent = name;
	const order = loops.count > 1 ? `, ${loops.count} loops` : '';
	$('lead').textContent = `${plural(m.layers, 'layer')}, run in ${plural(visits.length, 'visit')}${order}. ` +
		`${count(data.parameters.unique)} parameters are stored; a model without sharing would need ${count(data.parameters.visited)} to compute the same. ` +
		(used > 1.02 ? `Every weight is kept once and used ${used.toFixed(1)} times on average.` : 'Every weight is used once.');
	$('about').textContent = `knit ${data.knit}, device ${report.device}; ${m.architecture}, width ${m.embedding_length}, feed-forward ${m.feed_forward_length}, ` +
		`${m.heads} heads of ${m.head_dim}, ${m.kv_heads} for keys and values, vocabulary ${count(m.vocabulary)}` +
		(m.lora_rank ? `, LoRA of rank ${m.lora_rank}` : '') + '. Figures are computed from the compiled program, not measured.';
}

/* ---- tables ---- */

function dot(layer, global) {
	return el('span', {class: 'dot' + (layer < 0 ? (global ? ' global' : ' plain') : ''), style: layer >= 0 ? '--h:' + hueOf(layer) : null});
}
/* columns: [title, numeric]; a cell is a text or a node. */
function table(title, columns, rows, sum, open) {
	const cells = (row, tag) => row.map((c, i) => el(tag, {class: columns[i][1] ? 'n' : 'name'}, c));
	return el('details', {open: open}, el('summary', {text: title}), el('div', {class: 'scroll'}, el('table', {},
		el('thead', {}, el('tr', {}, ...cells(columns.map(c => c[0]), 'th'))),
		el('tbody', {}, ...rows.map(r => el('tr', {}, ...cells(r, 'td'))), sum ? el('tr', {class: 'sum'}, ...cells(sum, 'td')) : null))));
}
function named(layer, text, global) {
	const span = el('span', {}, dot(layer, global));
	span.append(text);
	return span;
}

function weightTable() {
	const list = [...storages.values()].filter(s => s.kind === 'weight' && !s.same_bytes_as);
	const total = key => list.reduce((sum, s) => sum + key(s), 0);
	return table(`Weights by storage and by use (${count(list.length)})`,
		[['storage'], ['type'], ['stored', 1], ['uses', 1], ['by use', 1], ['saved', 1]],
		list.map(s => [named(s.layer, s.name, true), s.type, bytes(s.bytes), count(s.uses), bytes(s.bytes * s.uses), bytes(s.bytes * Math.max(0, s.uses - 1))]),
		['all', '', bytes(total(s => s.bytes)), count(total(s => s.uses)), bytes(total(s => s.bytes * s.uses)),
			bytes(total(s => s.bytes * Math.max(0, s.uses - 1)))]);
}
function stepTable() {
	const kinds = new Map(), steps = report.buckets[bucket].steps;
	for (const s of steps) {
		const key = s.op + '|' + (s.parts || '');
		const k = kinds.get(key) || {op: s.op, parts: s.parts, n: 0, flops: 0, read: 0, weights: 0};
		k.n += 1;
		k.flops += s.flops;
		k.read += s.read_bytes;
		k.weights += s.weight_bytes;
		kinds.set(key, k);
	}
	const list = [...kinds.values()].sort((a, b) => b.n - a.n), all = key => list.reduce((sum, k) => sum + k[key], 0);
	return table(`Kinds of steps (${count(list.length)} kinds, ${count(steps.length)} steps in a run)`,
		[['step'], ['made of'], ['count', 1], ['FLOP', 1], ['reads', 1], ['of it weights', 1]],
		list.map(k => [k.op, k.parts ? partsText(k) : 'itself', count(k.n), flops(k.flops), bytes(k.read), bytes(k.weights)]),
		['all', '', count(all('n')), flops(all('flops')), bytes(all('read')), bytes(all('weights'))], true);
}
function visitTable() {
	const steps = report.buckets[bucket].steps;
	return table(`Visits (${count(visits.length)})`, [['visit'], ['layer', 1], ['loop', 1], ['LoRA of visit', 1], ['steps', 1], ['FLOP', 1], ['weights read', 1]],
		groups.map(g => {
			const own = g.steps.map(e => steps[e.index]), sum = key => own.reduce((n, s) => n + s[key], 0);
			const loop = g.visit >= 0 ? loopOf(g.visit) : -1, lora = g.visit >= 0 && data.model.lora_rank ? data.model.visit_stands_for[g.visit] : null;
			return [named(g.layer, g.title), g.layer >= 0 ? String(g.layer) : '', loops.count > 1 && loop >= 0 ? String(loop + 1) : '',
				lora === null ? '' : String(lora), count(own.length), flops(sum('flops')), bytes(sum('weight_bytes'))];
		}));
}
function stateTable() {
	const list = [...storages.values()].filter(s => s.kind === 'state');
	return table(`KV slots (${count(list.length)})`, [['slot'], ['type'], ['bytes', 1], ['uses', 1]],
		list.map(s => [s.name, s.type, bytes(s.bytes), count(s.uses)]), ['all', '', bytes(report.memory.state_bytes), '']);
}
function bucketTable() {
	return table('Programs for numbers of tokens', [['tokens'], ['steps', 1], ['arena', 1], ['lower bound', 1], ['gap', 1], ['execution order', 1], ['without sharing', 1],
		['in place', 1], ['orderings to keep', 1]],
		report.buckets.map(b => {
			const a = b.about, gap = a.arena_lower_bound ? 100 * (a.arena_bytes / a.arena_lower_bound - 1) : 0;
			return [a.hi === undefined ? 'any' : a.lo === a.hi ? String(a.lo) : `${a.lo} to ${a.hi}`, count(b.steps.length), bytes(a.arena_bytes),
				bytes(a.arena_lower_bound), gap.toFixed(2) + ' %', bytes(a.arena_in_order || 0), bytes(a.arena_unshared), count(a.in_place), count(a.hazards)];
		}), null, true);
}
/* Where a device is two: what lies on which, and why. */
function splitTables() {
	const s = report.split;
	if (!s)
		return [];
	const on = {first: s.devices[0].device, second: s.devices[1].device, both: 'both', none: ''};
	const held = s.storages.filter(t => t.reads_per_token > 0);
	return [table(`Split over two devices (${count(s.switches_per_token)} switches and ${bytes(s.moved_bytes_per_token)} moved per token)`,
		[['device'], ['steps', 1], ['weights', 1], ['read per token', 1], ['KV cache', 1], ['arena', 1]],
		s.devices.map((d, i) => [(i ? 'second: ' : 'first: ') + d.device, count(d.steps), bytes(d.weight_bytes), bytes(d.weight_bytes_read),
			bytes(d.state_bytes), bytes(d.arena_bytes)]), null, true),
	table(`Weights by device (${count(held.length)})`, [['storage'], ['device'], ['why'], ['reads per token', 1], ['bytes', 1]],
		held.map(t => [named(storages.get(t.id).layer, t.name, true), on[t.on], t.why, t.reads_per_token.toPrecision(3), bytes(t.bytes)]))];
}
function drawTables() {
	const open = [...$('table-list').querySelectorAll('details')].map(d => d.open);
	$('table-list').replaceChildren(bucketTable(), ...splitTables(), stepTable(), visitTable(), weightTable(), stateTable());
	[...$('table-list').querySelectorAll('details')].forEach((d, i) => {
		if (open.length)
			d.open = open[i];
	});
}
