/* The graph: one panel per visit, the shelf of weights above them, chips that show what each step uses. */

const G = {W: 212, GAP: 30, HEAD: 52, STEP: 36, STEP_GAP: 7, LEFT: 26, RIGHT: 10, ROW_GAP: 46, SHELF: 96, CHIP: 13};
const graph = {drawn: {panels: 0, steps: 0, edges: 0, chips: 0, shelf: 0}, chips: new Map(), view: {x: 0, y: 0, k: 1}, picked: 0};

const shortName = name => name.replace(/^(blk|model\.layers|visit|steps)\.\d+\./, '').replace(/\.weight$/, '');
const isWeight = id => storages.has(id) && storages.get(id).kind === 'weight';

/* "attn_q+k+v" for a step that uses three weights at once. */
function stepTitle(entry) {
	const names = [...new Set(entry.step.in.filter(isWeight).map(id => shortName(storages.get(id).name)))];
	if (!names.length)
		return entry.step.op;
	if (names.some(n => n.length > 24))
		return entry.part;
	const prefix = names[0].includes('_') ? names[0].slice(0, names[0].indexOf('_') + 1) : '';
	return names.map((n, i) => (i && prefix && n.startsWith(prefix) ? n.slice(prefix.length) : n)).join('+');
}
/* The op, where the title names weights; otherwise what the step is made of or belongs to. */
function stepSubtitle(entry, used) {
	if (used.some(isWeight))
		return entry.step.op;
	return partsOf(entry.step).length > 1 ? partsText(entry.step) : entry.part === entry.step.op ? '' : entry.part;
}
const partsOf = step => (step.parts ? step.parts.split('+') : []);
/* "3 linear + scale + add" */
function partsText(step) {
	const out = [];
	for (const p of partsOf(step)) {
		const last = out[out.length - 1];
		if (last && last.op === p)
			++last.n;
		else
			out.push({op: p, n: 1});
	}
	return out.map(o => (o.n > 1 ? o.n + ' ' : '') + o.op).join(' + ');
}

/* ---- places ---- */

/* How many visits stand in a row, and how many rows a loop takes. Best is one loop to a row, so that a layer keeps its
 * column; where that is far too tall several loops share a row, where it is too wide rows are cut. */
function chooseGrid() {
	const tall = Math.max(...groups.map(g => g.steps.length)) * (G.STEP + G.STEP_GAP) + G.HEAD + G.ROW_GAP;
	const wide = G.W + G.GAP, n = visits.length, looped = loops.count > 1;
	const ideal = Math.max(4, Math.ceil(Math.sqrt(1.8 * n * tall / wide)));
	if (!looped)
		return {perRow: Math.min(n, n <= ideal * 1.5 ? n : ideal), byLoop: false, aligned: n <= ideal * 1.5};
	const columns = loops.prelude + loops.core + loops.coda;
	if (columns <= ideal * 1.5 && loops.count * tall <= 1.6 * columns * wide)
		return {perRow: columns, byLoop: true, aligned: true};
	const whole = loops.prelude === 0 && loops.coda === 0 && loops.core <= ideal;
	return {perRow: whole ? Math.max(1, Math.round(ideal / loops.core)) * loops.core : ideal, byLoop: false, aligned: false};
}

/* Column and row of every panel. */
function placePanels() {
	const wide = G.W + G.GAP, grid = chooseGrid(), perLine = grid.perRow, aligned = grid.aligned;
	graph.byLoop = grid.byLoop;
	let last = {column: -1, row: 0};
	for (const g of groups) {
		if (g.visit < 0) {
			g.column = last.column + (g === groups[0] ? 0 : 1);
			g.row = last.row;
			continue;
		}
		let at = g.visit, loop = 0;
		if (grid.byLoop) {
			loop = Math.max(0, loopOf(g.visit));
			if (g.visit >= loops.prelude + loops.core * loops.count)
				loop = loops.count - 1;
			at = g.visit - loop * loops.core;
		}
		g.row = loop + Math.floor(at / perLine);
		g.column = at % perLine;
		last = g;
	}
	const rowHeight = [];
	for (const g of groups) {
		g.height = G.HEAD + g.steps.length * (G.STEP + G.STEP_GAP) + 6;
		rowHeight[g.row] = Math.max(rowHeight[g.row] || 0, g.height);
	}
	const cards = shelfCards();
	const shelfRows = aligned ? 1 : Math.ceil(cards.length / (perLine + 1));
	const top = [];
	let y = shelfRows * (G.SHELF + 14) + G.ROW_GAP;
	for (let r = 0; r < rowHeight.length; ++r) {
		top[r] = y;
		y += (rowHeight[r] || 0) + G.ROW_GAP;
	}
	for (const g of groups) {
		g.x = (g.column + 1) * wide;
		g.y = top[g.row];
		g.steps.forEach((e, i) => {
			e.x = g.x + G.LEFT;
			e.y = g.y + G.HEAD + i * (G.STEP + G.STEP_GAP);
			e.w = G.W - G.LEFT - G.RIGHT;
		});
	}
	cards.forEach((card, i) => {
		const owner = groups.find(g => g.layer === card.layer && g.visit >= 0);
		card.x = aligned ? (card.layer < 0 ? 0 : owner.x) : (i % (perLine + 1)) * wide;
		card.y = aligned ? 0 : Math.floor(i / (perLine + 1)) * (G.SHELF + 14);
	});
	graph.width = Math.max(...groups.map(g => g.x + G.W), ...cards.map(c => c.x + G.W));
	graph.height = y;
	graph.aligned = aligned;
	graph.cards = cards;
	graph.top = top;
}

/* One card for what belongs to the whole model, one per layer. */
function shelfCards() {
	const cards = new Map();
	for (const s of storages.values()) {
		if (s.kind !== 'weight' || !s.users.length)
			continue;
		const layer = groups.some(g => g.layer === s.layer && g.visit >= 0) ? s.layer : -1;
		if (!cards.has(layer))
			cards.set(layer, {layer, storages: []});
		cards.get(layer).storages.push(s);
	}
	return [...cards.values()].sort((a, b) => a.layer - b.layer);
}

/* ---- drawing ---- */

function chip(id, x, y, size) {
	const s = storages.get(id);
	const round = s.kind === 'state';
	const kind = s.kind === 'weight' ? (s.layer < 0 ? 'weight global' : 'weight') : s.kind;
	const node = svg('rect', {class: 'chip ' + kind, x, y, width: size, height: size, rx: round ? size / 2 : 3, 'data-storage': id,
		style: s.layer >= 0 ? '--h:' + hueOf(s.layer) : null});
	node.center = {x: x + size / 2, y: y + size / 2};
	if (!graph.chips.has(id))
		graph.chips.set(id, []);
	graph.chips.get(id).push(node);
	++graph.drawn.chips;
	return node;
}

function drawStep(entry) {
	const {step, x, y, w} = entry;
	const parts = partsOf(step);
	const node = svg('g', {class: 'step' + (parts.length > 1 ? ' fused' : ''), 'data-step': entry.index});
	node.append(svg('rect', {class: 'step-box', x, y, width: w, height: G.STEP, rx: 5}));
	if (parts.length > 1)
		node.append(svg('rect', {class: 'step-band', x, y, width: 4, height: G.STEP, rx: 2}));
	const used = [...new Set(step.in)].filter(id => storages.has(id));
	const shown = [...used.filter(isWeight), ...used.filter(id => storages.get(id).kind === 'adapter').slice(0, 1),
		...used.filter(id => storages.get(id).kind === 'state')].slice(0, 7);
	const room = w - 14 - shown.length * (G.CHIP + 3);
	node.append(svg('text', {class: 'step-title near', x: x + 9, y: y + 15, text: cut(stepTitle(entry), w - 12, 7.1)}),
		svg('text', {class: 'step-op near', x: x + 9, y: y + 29, text: cut(stepSubtitle(entry, used), room, 6.4)}),
		svg('text', {class: 'step-title afar', x: x + 9, y: y + 25, text: cut(stepTitle(entry).replace(/^(attn|ffn)_/, ''), room, 10.4)}));
	shown.forEach((id, i) =>
		node.append(chip(id, x + w - 7 - (shown.length - i) * (G.CHIP + 3) + 3, y + G.STEP - G.CHIP - 4, G.CHIP)));
	entry.node = node;
	++graph.drawn.steps;
	return node;
}
const cut = (text, room, per) => (text.length * per <= room ? text : text.slice(0, Math.max(1, Math.floor(room / per) - 1)) + '…');

function drawPanel(g) {
	const plain = g.layer < 0 ? ' plain' : '';
	const loop = loops.count > 1 && g.visit >= 0 ? loopOf(g.visit) : -1;
	const sub = g.visit < 0 ? plural(g.steps.length, 'step')
		: 'layer ' + g.layer + (loop >= 0 ? ' · loop ' + (loop + 1) : '');
	const node = svg('g', {style: g.layer >= 0 ? '--h:' + hueOf(g.layer) : null});
	node.append(svg('rect', {class: 'panel-box' + plain, x: g.x, y: g.y, width: G.W, height: g.height, rx: 10}),
		svg('rect', {class: 'panel-head' + plain, x: g.x, y: g.y, width: G.W, height: 7, rx: 3}),
		svg('text', {class: 'panel-title', x: g.x + 12, y: g.y + 28, text: g.title}),
		svg('text', {class: 'panel-sub near', x: g.x + 12, y: g.y + 44, text: sub}));
	for (const entry of g.steps)
		node.append(drawStep(entry));
	++graph.drawn.panels;
	return node;
}

function drawCard(card) {
	const plain = card.layer < 0 ? ' plain' : '';
	const total = card.storages.reduce((sum, s) => sum + s.bytes, 0);
	const visited = visits.filter(l => l === card.layer).length;
	const title = card.layer < 0 ? 'whole model' : 'layer ' + card.layer;
	const node = svg('g', {style: card.layer >= 0 ? '--h:' + hueOf(card.layer) : null});
	node.append(svg('rect', {class: 'shelf-box' + plain, x: card.x, y: card.y, width: G.W, height: G.SHELF, rx: 8}),
		svg('text', {class: 'shelf-label', x: card.x + 12, y: card.y + 27, text: title}),
		svg('text', {class: 'shelf-note', x: card.x + 12, y: card.y + 49,
			text: bytes(total) + (card.layer < 0 ? ', once' : ' for ' + plural(visited, 'visit'))}));
	card.storages.slice(0, 11).forEach((s, i) => {
		const c = chip(s.id, card.x + 12 + i * 17, card.y + 66, 15);
		c.classList.add('on-shelf');
		s.shelf = c;
		node.append(c);
	});
	++graph.drawn.shelf;
	return node;
}

/* The weights of a layer on their way down to its visits. */
function drawRibbons(parent) {
	if (!graph.aligned)
		return;
	for (const card of graph.cards) {
		const users = groups.filter(g => g.layer === card.layer && g.visit >= 0 && g.x === card.x);
		if (card.layer < 0 || !users.length)
			continue;
		const bottom = Math.max(...users.map(g => g.y));
		parent.append(svg('rect', {class: 'ribbon', x: card.x + 60, y: card.y + G.SHELF, width: G.W - 120, height: bottom - card.y - G.SHELF,
			style: '--h:' + hueOf(card.layer)}));
	}
}

/* From the step that writes a value to each that reads it. */
function drawEdges(behind, inside) {
	const writer = new Map();
	for (const to of entries) {
		for (const id of new Set(to.step.in)) {
			const from = writer.get(id);
			if (!from || storages.has(id) && storages.get(id).kind !== 'output')
				continue;
			const path = svg('path', {class: 'edge', d: edgePath(from, to), 'data-from': from.index, 'data-to': to.index});
			(from.group === to.group ? inside : behind).append(path);
			++graph.drawn.edges;
		}
		for (const id of to.step.out)
			if (!storages.has(id) || storages.get(id).kind !== 'state')
				writer.set(id, to);
	}
}
function edgePath(from, to) {
	const middle = G.STEP / 2, x0 = from.x + from.w, y0 = from.y + middle, y1 = to.y + middle;
	if (from.group === to.group) {
		if (to.index === from.index + 1)
			return `M${from.x + 30},${from.y + G.STEP}V${to.y}`;
		const bulge = Math.min(17, 6 + 2 * (to.index - from.index));
		return `M${from.x},${y0}C${from.x - bulge},${y0} ${from.x - bulge},${y1} ${to.x},${y1}`;
	}
	if (to.group.row === from.group.row && to.group.column > from.group.column)
		return `M${x0},${y0}C${x0 + 40},${y0} ${to.x - 46},${y1} ${to.x},${y1}`;
	/* Round the end of the row. */
	const gutter = graph.top[to.group.row] - G.ROW_GAP / 2, out = x0 + G.RIGHT + 12, back = to.x - G.LEFT - 12;
	return `M${x0},${y0}H${out}V${gutter}H${back}V${y1}H${to.x}`;
}

/* ---- moving ---- */

function applyView() {
	const {x, y, k} = graph.view;
	graph.layer.setAttribute('transform', `translate(${x},${y}) scale(${k})`);
	$('picture').classList.toggle('far', k < 0.62);
	$('picture').classList.toggle('farther', k < 0.3);
}
function zoomBy(factor, cx, cy) {
	const v = graph.view, k = Math.min(3, Math.max(0.02, v.k * factor));
	v.x = cx - (cx - v.x) * k / v.k;
	v.y = cy - (cy - v.y) * k / v.k;
	v.k = k;
	applyView();
}
function zoomFit() {
	const box = $('picture').getBoundingClientRect(), margin = 16;
	const k = Math.min((box.width - 2 * margin) / graph.width, (box.height - 2 * margin) / graph.height, 1.2);
	graph.view = {k, x: (box.width - graph.width * k) / 2, y: Math.max(margin, (box.height - graph.height * k) / 2)};
	applyView();
}
function zoomRead() {
	const first = groups.find(g => g.visit >= 0) || groups[0];
	graph.view = {k: 1, x: 14 - Math.max(0, first.x - G.W - G.GAP), y: 14};
	applyView();
}
/* "#use=blk.0.attn_q.weight" in the address shows the uses of that weight. */
function showAsked() {
	const asked = /^#use=(.+)$/.exec(decodeURIComponent(location.hash));
	const s = asked ? [...storages.values()].find(one => one.name === asked[1]) : null;
	if (!s)
		return;
	$('graph').scrollIntoView();
	$('picture').classList.add('dimmed');
	pickStorage(s);
}
function wireMoving() {
	const picture = $('picture');
	let from = null, moved = false;
	picture.addEventListener('pointerdown', event => {
		from = {x: event.clientX - graph.view.x, y: event.clientY - graph.view.y, at: [event.clientX, event.clientY]};
		moved = false;
	});
	picture.addEventListener('pointermove', event => {
		if (!from)
			return;
		if (!moved && Math.hypot(event.clientX - from.at[0], event.clientY - from.at[1]) < 4)
			return;
		if (!moved)
			picture.setPointerCapture(event.pointerId);
		moved = true;
		picture.classList.add('moving');
		graph.view.x = event.clientX - from.x;
		graph.view.y = event.clientY - from.y;
		applyView();
	});
	for (const end of ['pointerup', 'pointercancel'])
		picture.addEventListener(end, () => {
			from = null;
			picture.classList.remove('moving');
		});
	picture.addEventListener('click', event => {
		if (!moved)
			pick(event.target);
	});
	picture.addEventListener('wheel', event => {
		if (document.activeElement !== picture && !event.ctrlKey)
			return;
		event.preventDefault();
		const box = picture.getBoundingClientRect();
		zoomBy(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
	}, {passive: false});
	picture.addEventListener('keydown', event => {
		const step = {ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60]}[event.key];
		const box = picture.getBoundingClientRect();
		if (event.key === '+' || event.key === '-')
			zoomBy(event.key === '+' ? 1.25 : 0.8, box.width / 2, box.height / 2);
		else if (event.key === 'Escape')
			pick(picture);
		else if (step) {
			graph.view.x += step[0];
			graph.view.y += step[1];
			applyView();
		} else
			return;
		event.preventDefault();
	});
	const centre = factor => {
		const box = picture.getBoundingClientRect();
		zoomBy(factor, box.width / 2, box.height / 2);
	};
	$('zoom-in').addEventListener('click', () => centre(1.3));
	$('zoom-out').addEventListener('click', () => centre(1 / 1.3));
	$('zoom-fit').addEventListener('click', zoomFit);
	$('zoom-one').addEventListener('click', zoomRead);
}

/* ---- naming and highlighting ---- */

function stepLines(entry) {
	const s = report.buckets[bucket].steps[entry.index];
	const parts = partsOf(s);
	return [
		parts.length > 1 ? 'fused from ' + parts.length + ' ops: ' + partsText(s) : null,
		entry.group.visit >= 0 ? visitName(entry.group.visit) : null,
		flops(s.flops) + '; reads ' + bytes(s.read_bytes) + ', writes ' + bytes(s.write_bytes),
		s.weight_bytes ? bytes(s.weight_bytes) + ' of it weights' : null,
	];
}
function storageLines(s) {
	const kinds = {weight: 'weight', adapter: 'LoRA matrix', state: 'KV slot', input: 'input', output: 'output'};
	return [kinds[s.kind] + ', ' + s.type, bytes(s.bytes) + (s.kind === 'weight' ? ' stored once' : ''),
		s.kind === 'weight' ? plural(s.uses, 'use') + (s.uses > 1 ? ': ' + bytes(s.bytes * s.uses) + ' if each had a copy' : '') : null];
}

function wireTips() {
	const picture = $('picture');
	picture.addEventListener('pointerover', event => {
		const c = event.target.closest('[data-storage]'), st = event.target.closest('[data-step]');
		if (c)
			showTip(event, storages.get(Number(c.dataset.storage)).name, storageLines(storages.get(Number(c.dataset.storage))));
		else if (st)
			showTip(event, entries[Number(st.dataset.step)].step.op + '  ' + entries[Number(st.dataset.step)].step.origin,
				stepLines(entries[Number(st.dataset.step)]));
		else
			hideTip();
		markEdges(st ? st.dataset.step : null);
	});
	picture.addEventListener('pointerleave', () => {
		hideTip();
		markEdges(null);
	});
}
function markEdges(step) {
	for (const e of graph.marked || [])
		e.classList.remove('hit');
	graph.marked = step === null ? [] : [...$('picture').querySelectorAll(`.edge[data-from="${step}"],.edge[data-to="${step}"]`)];
	for (const e of graph.marked)
		e.classList.add('hit');
}

/* A click: a chip shows all uses of its storage, a step shows itself, anything else resets. */
function pick(target) {
	const picture = $('picture'), c = target.closest('[data-storage]'), st = target.closest('[data-step]');
	for (const node of picture.querySelectorAll('.hit'))
		node.classList.remove('hit');
	graph.threads.replaceChildren();
	picture.classList.toggle('dimmed', Boolean(c));
	graph.picked = c ? Number(c.dataset.storage) : 0;
	if (c)
		pickStorage(storages.get(graph.picked));
	else if (st)
		pickStep(entries[Number(st.dataset.step)]);
	else
		welcome();
}
function pickStorage(s) {
	const chips = graph.chips.get(s.id) || [];
	for (const c of chips)
		c.classList.add('hit');
	for (const user of s.users)
		user.node.classList.add('hit');
	if (s.shelf)
		for (const c of chips)
			if (c !== s.shelf) {
				const a = s.shelf.center, b = c.center, mid = (a.y + b.y) / 2;
				graph.threads.append(svg('path', {class: 'thread', d: `M${a.x},${a.y}C${a.x},${mid} ${b.x},${mid} ${b.x},${b.y}`,
					style: '--h:' + (s.layer >= 0 ? hueOf(s.layer) : 48)}));
			}
	describeStorage(s);
}
function describeStorage(s) {
	const colour = s.kind === 'state' ? 'var(--kv)' : s.layer >= 0 ? `hsl(${hueOf(s.layer)} var(--sat) var(--lit))` : 'hsl(48 70% 45%)';
	const rows = [['type', s.type], ['stored', bytes(s.bytes)]];
	if (s.kind === 'weight')
		rows.push(['used', plural(s.uses, 'time')], ['as copies', bytes(s.bytes * s.uses)]);
	$('detail').replaceChildren(
		el('h3', {}, el('span', {class: 'swatch', style: 'background:' + colour}), s.name),
		el('dl', {}, ...rows.flatMap(([k, v]) => [el('dt', {text: k}), el('dd', {text: v})])),
		el('div', {text: s.users.length > 1 ? 'Every use reads the same bytes:' : 'Used by:'}),
		el('ul', {class: s.users.length > 8 ? 'uses' : ''}, ...s.users.map(u =>
			el('li', {text: (u.group.visit >= 0 ? visitName(u.group.visit) : u.group.title) + ' · ' + stepTitle(u)}))));
}
function pickStep(entry) {
	entry.node.classList.add('hit');
	const s = report.buckets[bucket].steps[entry.index], parts = partsOf(s);
	const used = [...new Set(s.in)].filter(id => storages.has(id)).map(id => storages.get(id));
	$('detail').replaceChildren(
		el('h3', {text: stepTitle(entry)}),
		el('dl', {}, ...[['op', s.op], ['origin', s.origin || '-'], ['step', entry.index + ' of ' + entries.length],
			['FLOP', flops(s.flops)], ['reads', bytes(s.read_bytes)], ['weights', bytes(s.weight_bytes)], ['writes', bytes(s.write_bytes)]]
			.flatMap(([k, v]) => [el('dt', {text: k}), el('dd', {text: v})])),
		parts.length > 1 ? el('p', {text: `One step made of ${parts.length} ops: ` + partsText(s)}) : null,
		used.length ? el('div', {text: 'It uses:'}) : null,
		el('ul', {}, ...used.map(u => el('li', {text: u.name + ' (' + bytes(u.bytes) + ')'}))));
}
function welcome() {
	const most = [...storages.values()].filter(s => s.kind === 'weight').sort((a, b) => b.uses * b.bytes - a.uses * a.bytes)[0];
	$('detail').replaceChildren(
		el('h3', {text: 'How to read this'}),
		el('p', {text: 'A token enters at "embedding", passes the visits in order and leaves at "head".' + (graph.byLoop
			? ' Each row is one loop over the same layers.' : '')}),
		el('p', {text: 'The cards at the top are all the weights there are. A panel below brings none of its own: its squares point at the card of its colour.'}),
		most && most.uses > 1 ? el('p', {}, 'For example ', el('button', {type: 'button', text: 'show ' + most.name, onclick: () => {
			$('picture').classList.add('dimmed');
			graph.picked = most.id;
			pickStorage(most);
		}}), ` is stored once and used ${most.uses} times.`) : null,
		el('p', {text: 'Click a step for its parts, FLOP and bytes. Escape, or a click beside everything, comes back here.'}));
}

function drawGraph() {
	placePanels();
	const behind = svg('g'), inside = svg('g', {'pointer-events': 'none'});
	graph.threads = svg('g');
	graph.layer = svg('g');
	drawRibbons(graph.layer);
	graph.layer.append(behind);
	for (const card of graph.cards)
		graph.layer.append(drawCard(card));
	for (const g of groups)
		graph.layer.append(drawPanel(g));
	drawEdges(behind, inside);
	graph.layer.append(inside, graph.threads);
	$('picture').replaceChildren(graph.layer);
	wireMoving();
	wireTips();
	welcome();
	zoomFit();
	showAsked();
	addEventListener('hashchange', showAsked);
}
